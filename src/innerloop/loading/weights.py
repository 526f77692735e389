"""The weights of a model's folder as they are on disk: one safetensors file or its shards, never a pickle.

weight_files     the files that transformers would read
stored_tensors   what is in them
own_tensors      the same of a model in memory
fingerprint      a digest of a folder's; fingerprint_of: of any
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

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
    return fingerprint_of(stored_tensors(folder))


def own_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Those of a model in memory under the names that a folder has them by, where tied ones stand once."""
    seen = set[int]()
    for name, value in model.state_dict().items():
        if value.data_ptr() not in seen:
            seen.add(value.data_ptr())
            yield name, value.detach().cpu().contiguous()


def fingerprint_of(named: Iterable[tuple[str, Tensor]]) -> str:
    """That of a folder with these tensors."""
    with ThreadPoolExecutor() as pool:
        lines = sorted(pool.map(_digest, named))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digest(named: tuple[str, Tensor]) -> str:
    name, tensor = named
    data = tensor.reshape(-1).view(torch.uint8).numpy().data
    return f"{name} {tensor.dtype} {list(tensor.shape)} {hashlib.sha256(data).hexdigest()}"
