"""Says whether two answers are the same mathematics, for `verifiers.py`, in a process of its own.

Computer algebra on generated text may take for ever (10^{10^{10}}). math-verify's own time limit is a signal: it
needs the main thread, and can't stop a single long operation. Here a watchdog ends the whole process instead.

Reads lines of JSON, [reference, generated, seconds that this may take]; writes true or false for each.
It imports nothing of innerloop: it is run by its path, and should start at once.
"""

import faulthandler
import json
import logging
import os
import re
import sys

MEMORY = 4 << 30  # bytes of address space: what would not fit is refused before it is worked out digit by digit
MARKED = re.compile(r"\$|\\\(|\\\[|\\boxed")
COMMAND = re.compile(r"\\(?:text|mbox|mathrm|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+")
WORD = re.compile(r"[^\W\d_]{2,}")


def marked(text: str) -> str:
    """As math-verify reads it: a bare formula goes between dollars, text with words stays as it is."""
    return text if MARKED.search(text) or is_prose(text) else f"${text}$"


def is_prose(text: str) -> bool:
    """Text with words, of which math-verify reads one number or formula."""
    return not MARKED.search(text) and WORD.search(COMMAND.sub(" ", text)) is not None


def main() -> None:
    from math_verify import parse, verify

    logging.disable()
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except (ImportError, ValueError, OSError):  # not on every system
        pass
    with open(os.devnull, "w") as nowhere:
        for line in sys.stdin:
            reference, generated, seconds = json.loads(line)
            faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
            wanted, given = (parse(marked(text), parsing_timeout=0) for text in (reference, generated))
            equal = bool(verify(wanted, given, timeout_seconds=0))
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps(equal), flush=True)


if __name__ == "__main__":
    main()
