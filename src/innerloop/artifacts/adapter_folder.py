"""Exported folders that come from somebody else: checked before anything in them is used.

check_files, checked_files   an export consists of its own files: no links, nothing that runs when it is read
adapter_settings   what an adapter's config says of itself
read_adapter    the folder of an adapter -> LoRA values; every fault at once
stored_values, lora_values   the tensors of a safetensors file, the names and shapes of which are known
check_model     the weights in a model's folder are finite numbers
read_json       a JSON object of bounded size
"""

import math
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from innerloop.errors import Fault, Faults, UserError
from innerloop.files import read_json
from innerloop.loading.models import DTYPES
from innerloop.loading.weights import stored_tensors
from innerloop.numerics.tensors import TensorSet, not_finite
from innerloop.spaces.lora import LoraSettings, find_targets

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base_model_name_or_path"

_CODE = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".py", ".pyc", ".so"}  # the first six are pickle
CONFIG_BYTES = 4_000_000
_HEADER_BYTES = 4096, 256  # of a safetensors file: at all, and for each tensor beside its name
_TYPES = {"inference_mode": bool, "peft_version": str}  # any value of this type
UNUSED = {"megatron_core": "megatron.core", "qalora_group_size": 16}  # PEFT's own, for options that are off
UNSAID: Any = object()


def check_files(folder: Path, faults: Faults) -> None:
    """Adds a fault for each link, device and file of code in `folder`, without opening any."""
    if folder.is_symlink():
        faults.add("a link, not the folder itself", str(folder), str(folder.readlink()), "the folder: cp -rL copies it")
        return
    for path in sorted(folder.rglob("*")):  # it follows no links
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            faults.add("a link", str(path), str(path.readlink()), "the file itself: cp -rL copies what links lead to")
        elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            faults.add("neither a file nor a folder", str(path))
        elif path.suffix.lower() in _CODE:
            faults.add("a file that can hold code", str(path), expected="weights as safetensors, and no Python files")


def read_adapter(folder: Path, model: nn.Module, *, lora: LoraSettings, base_names: Sequence[str]) -> TensorSet:
    """The values that `export_adapter` wrote for `model` with these settings, in the order of their space.

    base_names  what its config may call the base model; "" = nothing

    The folder's files come first, because nothing is opened in one that `check_files` refuses. Then the config has to
    say what `export_adapter` would write and nothing else, and the weights have to be those of the settings: keys,
    shapes, float32, finite, and no larger a file than they take. Raises UserError with every fault.
    """
    faults = checked_files(folder)
    targets = find_targets(model, lora)
    _check_config(folder / CONFIG, lora, list(targets), base_names, faults)
    return lora_values(folder / WEIGHTS, targets, lora, faults)


def checked_files(folder: Path) -> Faults:
    """Raises UserError for files that could do harm, and where one of the two that are read is missing."""
    faults = Faults()
    check_files(folder, faults)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            faults.add("no such file", str(folder / name), expected="the adapter folder as it was written")
    faults.raise_if_any()
    return faults


def lora_values(
    path: Path, targets: Mapping[str, nn.Linear], lora: LoraSettings, faults: Faults, *, types: Sequence[str] = ("F32",)
) -> TensorSet:
    """The values of an adapter's file, by our names, in the order of their space. Raises UserError with the faults."""
    shapes = {
        f"{name}.lora_{side}": shape
        for name, module in targets.items()
        for side, shape in (("A", (lora.r, module.in_features)), ("B", (module.out_features, lora.r)))
    }
    stored = {f"base_model.model.{name}.weight": name for name in shapes}
    values = stored_values(path, {place: shapes[name] for place, name in stored.items()}, faults, types=types)
    faults.raise_if_any()
    return {name: values[place] for place, name in stored.items()}


def adapter_settings(folder: Path) -> tuple[LoraSettings, str]:
    """The settings of an adapter that innerloop wrote, and the base model's name, "" where it names none.

    Raises UserError for a folder without an adapter's files, and for a config that lacks what PEFT needs. What else
    it says, `read_adapter` checks against these settings.
    """
    faults = Faults()
    check_files(folder, faults)
    faults.raise_if_any()
    path = folder / CONFIG
    if not path.is_file():
        right = "the output_dir of a finished run, or the folder of an adapter"
        raise UserError(Fault(f"no {CONFIG} here", str(folder), expected=right))
    said = read_json(path, "an adapter's config", CONFIG_BYTES)
    known = {"r": int, "lora_alpha": int | float, "lora_dropout": int | float, "use_rslora": bool, BASE: str | None}
    for key, kind in known.items():
        value = said.get(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            faults.add("not a LoRA's", f"{path}: {key}", value, "what PEFT writes")
    modules = said.get("target_modules")
    if not isinstance(modules, list) or not all(isinstance(module, str) for module in modules):
        faults.add("not the list that innerloop writes", f"{path}: target_modules", modules, "paths of modules")
    if not faults and said["r"] < 1:
        faults.add("not a LoRA's", f"{path}: r", said["r"], "a whole number above 0")
    faults.raise_if_any()
    options = {key: said[key] for key in ("r", "lora_alpha", "lora_dropout", "use_rslora")}
    return LoraSettings(target_modules=tuple(said["target_modules"]), **options), said[BASE] or ""


def check_model(folder: Path) -> None:
    """Raises UserError for tensors of another type than innerloop writes, and for NaN or infinity."""
    faults = Faults()
    for name, value in stored_tensors(folder):
        dtype = str(value.dtype).removeprefix("torch.")
        if not value.is_floating_point():
            continue  # a mask or a counter
        if dtype not in DTYPES:
            faults.add("another type", f"{folder}: {name}", dtype, ", ".join(DTYPES))
        elif not_finite({name: value}):
            faults.add("NaN or infinity", f"{folder}: {name}", expected="numbers")
    faults.raise_if_any()


def _check_config(
    path: Path, lora: LoraSettings, targets: list[str], base_names: Sequence[str], faults: Faults
) -> None:
    try:
        said = read_json(path, "an adapter's config", CONFIG_BYTES)
    except UserError as error:
        faults.extend(error.faults)
        return
    wanted: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": lora.r,
        "lora_alpha": lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "use_rslora": lora.use_rslora,
        "bias": "none",
        "init_lora_weights": True,  # other ways to start change the base's weights as well
    }
    for key, right in wanted.items():
        value = said.get(key, UNSAID)
        if not equal(value, right):
            shown = {} if value is UNSAID else {"value": value}
            faults.add("not what the run's settings say", f"{path}: {key}", expected=repr(right), **shown)
    if (base := said.get(BASE, "")) not in [name or None for name in base_names]:
        right = " or ".join(repr(name or None) for name in dict.fromkeys(base_names))
        faults.add("not what the run's settings say", f"{path}: {BASE}", base, right)
    modules = said.get("target_modules")
    if not isinstance(modules, list) or {str(module) for module in modules} != set(targets):
        right = f"the {len(targets)} modules that the run's settings choose, {targets[0]} first"
        faults.add("not the modules of this run", f"{path}: target_modules", modules, right)
    for key in sorted(said.keys() - wanted.keys() - {"target_modules", BASE}):
        value = said[key]
        unused = value is None or value is False or value in ([], {}) or equal(value, UNUSED.get(key, UNSAID))
        if not unused and not isinstance(value, _TYPES.get(key, ())):
            faults.add("an option that innerloop never sets", f"{path}: {key}", value, "null")


def equal(value: Any, right: Any) -> bool:
    return isinstance(value, bool) == isinstance(right, bool) and value == right  # True == 1


def stored_values(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    faults: Faults,
    *,
    of: str = "this adapter",
    types: Sequence[str] = ("F32",),
) -> TensorSet:
    """The tensors of a file, which has to hold these, of one of the types, and no others; incomplete where there are
    faults."""
    least, each = _HEADER_BYTES
    room = least + sum(4 * math.prod(shape) + len(stored) + each for stored, shape in shapes.items())
    if (size := path.stat().st_size) > room:
        faults.add(f"more bytes than {of} can have", str(path), size, f"at most {room:,}")
        return {}
    values: TensorSet = {}
    try:
        with safe_open(path, framework="pt") as file:
            found = set(file.keys())
            for stored in sorted(found - shapes.keys()):
                faults.add(f"a tensor that {of} doesn't have", str(path), stored)
            for stored, shape in shapes.items():
                if stored not in found:
                    faults.add("a tensor is missing", str(path), expected=stored)
                    continue
                described, where = file.get_slice(stored), f"{path}: {stored}"
                given, right = (described.get_dtype(), described.get_shape()), (types[0], list(shape))
                if given[0] not in types or given[1] != right[1]:
                    faults.add("another type or shape", where, given, f"{right}, from the run's settings and the model")
                    continue
                values[stored] = file.get_tensor(stored)
                if not_finite({stored: values[stored]}):
                    faults.add("NaN or infinity", where, expected="numbers")
    except (SafetensorError, OSError) as error:
        faults.add(f"not a safetensors file ({error})", str(path), expected="the file as the run wrote it")
    return values
