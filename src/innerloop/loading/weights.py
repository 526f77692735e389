"""The weights of a model's folder as they are on disk: one safetensors file or its shards, never a pickle.

weight_files     the files that transformers would read
stored_tensors   what is in them
fingerprint      a digest of that
"""

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from innerloop.errors import Fault, UserError


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files transformers would read; none while a shard that the index names is missing."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return [single]
    if not index.exists():
        return []
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        shards = [folder / name for name in names]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(Fault("not a weights index", str(index))) from error
    if elsewhere := [name for name in names if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name)]:
        expected = "names of safetensors files in the same folder"
        raise UserError(Fault("not a weights index", str(index), elsewhere[0], expected))
    return shards if all(shard.exists() for shard in shards) else []


def stored_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """One after the other, as they are in the folder's safetensors files."""
    from safetensors import SafetensorError, safe_open

    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as stored:
                for name in stored.keys():  # noqa: SIM118 (the object is no mapping)
                    yield name, stored.get_tensor(name)
        except (SafetensorError, OSError) as error:
            expected = "a whole safetensors file: copy or download it again"
            raise UserError(Fault(f"damaged weights ({error})", str(path), expected=expected)) from error


def fingerprint(folder: Path) -> str:
    """sha256 over the name, dtype, shape and bytes of every tensor in the folder's safetensors files.

    Every byte is read (about half a second per gigabyte and core); sharding and file metadata do not count.
    """
    with ThreadPoolExecutor() as pool:
        lines = sorted(pool.map(_digest, stored_tensors(folder)))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digest(named: tuple[str, Tensor]) -> str:
    name, tensor = named
    data = tensor.reshape(-1).view(torch.uint8).numpy().data
    return f"{name} {tensor.dtype} {list(tensor.shape)} {hashlib.sha256(data).hexdigest()}"
