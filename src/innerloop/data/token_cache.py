"""Encoded tasks on disk: a large pool is tokenized once, and read by every later run that would get the same tokens.

encode_cached  what an encoder makes of tasks, from the cache where it is there
content_key    a digest of all that the tokens follow from; None where that can't be told
limit_bytes    how much is kept: INNERLOOP_TOKEN_CACHE in MB, 256 by default, 0 for none

An entry is one file in tokens/ of the cache folder: a sha256 and the safetensors bytes it is of. One that is damaged,
of another key or gone is written again, and a folder that can't be written is none: nothing here is ever an error.
Only what the encoder returns is kept, so faults are found and said as without a cache. Whoever writes removes the
entries that were read longest ago until the rest is within the limit.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from innerloop.data.encoder import Encoder
from innerloop.data.encoding import NOT_SCORED, Encoded, EncodedTask, End
from innerloop.data.tasks import Example, Task
from innerloop.data.templates import writes_date
from innerloop.files import cache_folder, write_whole

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = 2  # raise it when what `_packed` writes changes, or what an encoder makes of the same input
# Below, the tokenizer is done before its own digest is: writing out a vocabulary of 49,000 takes as long as reading
# about 50,000 characters with it.
WORTH_CHARACTERS = 100_000
SUFFIX = ".tokens"

_DIGEST = hashlib.sha256().digest_size


def encode_cached(tasks: Sequence[Task], encoder: Encoder) -> list[EncodedTask]:
    """Equal to `encoder.tasks(tasks)`, and raises what it raises."""
    limit = limit_bytes()
    key = None
    if limit and _characters(tasks) >= WORTH_CHARACTERS:
        key = content_key(tasks, encoder)
    if key is None:
        return encoder.tasks(tasks)
    folder = cache_folder() / "tokens"
    entry = folder / (key + SUFFIX)
    if (found := _read(entry, key)) is not None:
        return _unpacked(tasks, found)
    encoded = encoder.tasks(tasks)
    with suppress(OSError):
        write_whole(entry, _sealed(key, _packed(tasks, encoded)))
        _remove_oldest(folder, limit)
    return encoded


def content_key(tasks: Sequence[Task], encoder: Encoder) -> str | None:
    """Of the tokenizer's whole content, the examples' in their order, and how they are fitted.

    Names, of tasks as of tokenizers, don't count. None where the tokenizer is more than what it writes about itself.
    """
    known = _tokenizer_content(encoder.tokenizer)
    if known is None or (encoder.date is None and writes_date(encoder.tokenizer)):
        return None
    examples = [[[example.id for example in side] for side in (task.pool, task.test)] for task in tasks]
    parts = [FORMAT, known, encoder.max_length, encoder.on_too_long, encoder.date, examples]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def limit_bytes() -> int:
    """Raises nothing: what is no number is the default."""
    try:
        megabytes = float(os.environ.get("INNERLOOP_TOKEN_CACHE") or 256)
        return max(0, int(megabytes * 1e6))
    except (ValueError, OverflowError):
        return 256_000_000


def _tokenizer_content(tokenizer: "PreTrainedTokenizerBase") -> list[object] | None:
    kind, template = type(tokenizer), tokenizer.chat_template
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not kind.__module__.startswith("transformers."):
        return None
    tokenizer("x", add_special_tokens=False)  # an earlier call may have left its padding and truncation behind
    return [
        f"{kind.__module__}.{kind.__qualname__}",
        [version(package) for package in ("transformers", "tokenizers", "jinja2")],
        backend.to_str(),
        template,
        {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        [tokenizer.bos_token_id, tokenizer.eos_token_id, getattr(tokenizer, "split_special_tokens", False)],
        [[str(token), token.special] for token in tokenizer.added_tokens_decoder.values()],
    ]


def _characters(tasks: Sequence[Task]) -> int:
    def length(example: Example) -> int:
        prompt = example.prompt
        asked = len(prompt) if isinstance(prompt, str) else sum(len(message.content) for message in prompt)
        return asked + len(example.answer)

    return sum(length(example) for task in tasks for example in (*task.pool, *task.test))


def _packed(tasks: Sequence[Task], encoded: Sequence[EncodedTask]) -> bytes:
    """kept: whether each example is in; size and prompt: tokens of each that is, and those not scored.

    around: of the different [opening, stop], which few are; which: the place of each example's own in them.
    """
    from safetensors.numpy import save

    rows = [row for each in encoded for row in (*each.pool, *each.test)]
    ids = [{row.id for row in (*each.pool, *each.test)} for each in encoded]
    examples = [(place, example) for place, task in enumerate(tasks) for example in (*task.pool, *task.test)]
    around = list(dict.fromkeys((row.opening, row.stop) for row in rows))
    places = {pair: place for place, pair in enumerate(around)}
    arrays = {
        "around": np.frombuffer(json.dumps(around).encode(), dtype=np.uint8),
        "which": np.array([places[row.opening, row.stop] for row in rows], dtype=np.int32),
        "prefix": np.array([row.prefix for row in rows], dtype=np.int32),
        "end": np.array([row.end for row in rows], dtype=np.int32),
        "kept": np.array([example.id in ids[place] for place, example in examples], dtype=np.bool_),
        "size": np.array([len(row.tokens) for row in rows], dtype=np.int32),
        "prompt": np.array([row.labels.count(NOT_SCORED) for row in rows], dtype=np.int32),
        "tokens": np.array([token for row in rows for token in row.tokens], dtype=np.int32),
        "truncated": np.array([each.truncated for each in encoded], dtype=np.int32),
    }
    return save(arrays)


def _sealed(key: str, data: bytes) -> bytes:
    """With a digest that the same bytes under another key don't have."""
    return hashlib.sha256(key.encode() + data).digest() + data


def _read(entry: Path, key: str) -> dict[str, list[int]] | None:
    """The entry's arrays; None unless it holds, byte for byte, what was written for this key."""
    from safetensors.numpy import load

    try:
        whole = entry.read_bytes()
    except OSError:
        return None
    if whole != _sealed(key, whole[_DIGEST:]):
        return None
    with suppress(OSError):  # in a folder that can only be read
        os.utime(entry)  # when it was last read
    return {name: array.tolist() for name, array in load(whole[_DIGEST:]).items()}


def _unpacked(tasks: Sequence[Task], found: dict[str, list[int]]) -> list[EncodedTask]:
    bounds = pairwise(accumulate(found["size"], initial=0))
    around = [(str(opening), End(tuple(ids), text)) for opening, (ids, text) in json.loads(bytes(found["around"]))]
    numbers = (found[name] for name in ("prompt", "prefix", "end", "which"))
    kept, rows, tokens = iter(found["kept"]), zip(bounds, *numbers, strict=True), tuple(found["tokens"])

    def side(examples: tuple[Example, ...]) -> tuple[tuple[Example, ...], tuple[Encoded, ...]]:
        left = tuple(example for example in examples if next(kept))
        encoded: list[Encoded] = []
        for example in left:
            (first, last), prompt, prefix, end, which = next(rows)
            labels = (NOT_SCORED,) * prompt + tokens[first + prompt : last]
            opening, stop = around[which]
            encoded.append(Encoded(example.id, tokens[first:last], labels, prefix, end, stop, opening))
        return left, tuple(encoded)

    read: list[EncodedTask] = []
    for task, truncated in zip(tasks, found["truncated"], strict=True):
        (pool, pool_rows), (test, test_rows) = side(task.pool), side(task.test)
        dropped = len(task.pool) + len(task.test) - len(pool) - len(test)
        left = replace(task, pool=pool, test=test)
        read.append(EncodedTask(left, pool_rows, test_rows, dropped=dropped, truncated=truncated))
    return read


def _remove_oldest(folder: Path, limit: int) -> None:
    """Files of killed writers count as entries."""
    stats = []
    for path in folder.iterdir():
        with suppress(OSError):  # another process may have removed it
            stats.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    size = sum(each for _, each, _ in stats)
    for _, freed, path in sorted(stats):
        if size <= limit:
            return
        with suppress(OSError):
            path.unlink()
            size -= freed
