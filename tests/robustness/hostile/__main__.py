"""Hostile input: everything that files, records and configs may be is read rightly or refused in words.

    PYTHONPATH=tests:benchmarks python -m robustness.hostile --count 100000     (a few minutes on one core)

What the process may map is limited, so that a reader without bound meets a MemoryError.
"""

import argparse
import faulthandler
import json
import resource
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from record import header, write_result

from robustness.hostile.corpus import everything

ADDRESSES = 16_000_000_000  # bytes that the process may map beside what it has


def _limit_addresses() -> None:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESSES, resource.RLIM_INFINITY))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="drawn inputs of the reader, and of the loader")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    faulthandler.dump_traceback_later(600 + options.count // 50, exit=True)  # for code that no alarm reaches
    _limit_addresses()
    memory = Path("/dev/shm")  # where there is one, files cost no disk
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        found = everything(options.count, options.seed, Path(folder))
    print(json.dumps(found, indent=1))
    if options.output:
        write_result(options.output, header() | found)
    if found["cases"]["failures"] or found["reader"]["failures"] or found["config"]["failures"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
