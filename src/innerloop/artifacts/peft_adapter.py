"""An adapter that PEFT wrote for anybody -> LoRA values, where they mean what they mean here.

read_peft_adapter   the folder of one; every fault at once
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from innerloop.artifacts.adapter_folder import (
    BASE,
    CONFIG,
    CONFIG_BYTES,
    UNSAID,
    UNUSED,
    WEIGHTS,
    checked_files,
    equal,
    lora_values,
)
from innerloop.errors import Faults, UserError
from innerloop.files import read_json
from innerloop.numerics.tensors import TensorSet
from innerloop.spaces.lora import LoraSettings, find_targets

_PEFT_DEFAULTS = {"r": 8, "lora_alpha": 8, "use_rslora": False}
# Of PEFT's settings, those that say how an adapter was made, or again what its weights and its files say.
_NO_MATTER = {"peft_type", "task_type", "bias", "init_lora_weights", "lora_dropout", "inference_mode", "peft_version"}
_NO_MATTER |= {BASE, "revision", "auto_mapping", "target_modules", "exclude_modules"}
_NO_MATTER |= {"layers_to_transform", "layers_pattern"}
_STORED = re.compile(r"base_model\.model\.(.+)\.lora_[AB]\.weight")


def read_peft_adapter(folder: Path, model: nn.Module, *, lora: LoraSettings, hub_id: str) -> TensorSet:
    """The values, in float32, of an adapter as PEFT's `save_pretrained` writes it, of any program's training.

    lora    what the config of this run says; the adapter has to be of the same rank, scale and modules
    hub_id  of the base model; "" = not known

    Dropout and how the adapter was initialized are of no account, and its modules are those of its weights. Everything
    else that changes what it computes is refused. Raises UserError with every fault.
    """
    faults = checked_files(folder)
    try:
        said = read_json(folder / CONFIG, "an adapter's config", CONFIG_BYTES)
    except UserError as error:
        faults.extend(error.faults)
        said = {}
    faults.raise_if_any()
    _check_peft_config(folder / CONFIG, said, lora, hub_id, faults)
    faults.raise_if_any()
    targets = find_targets(model, lora)
    _check_modules(folder / WEIGHTS, model, set(targets), faults)
    faults.raise_if_any()
    values = lora_values(folder / WEIGHTS, targets, lora, faults, types=("F32", "BF16", "F16"))
    return {name: value.float() for name, value in values.items()}


def _check_peft_config(path: Path, said: Mapping[str, Any], lora: LoraSettings, hub_id: str, faults: Faults) -> None:
    """A setting that innerloop has too is to be the config's; others may say nothing."""
    kind = said.get("peft_type")
    if kind != "LORA":
        faults.add("not a LoRA adapter", f"{path}: peft_type", kind, "'LORA'")
        return
    for key in ("r", "lora_alpha", "use_rslora"):
        ours, theirs = getattr(lora, key), said.get(key, _PEFT_DEFAULTS[key])
        if not equal(theirs, ours):
            faults.add("not what the adapter has", f"method.lora.{key}", ours, f"{theirs!r}, as in {path}")
    for key, right in (("bias", ("none",)), ("init_lora_weights", (True, False, "gaussian", "orthogonal"))):
        if not any(equal(said.get(key, right[0]), each) for each in right):
            faults.add("changes the base model too", f"{path}: {key}", said[key], " or ".join(map(repr, right)))
    base = said.get(BASE)
    if hub_id and isinstance(base, str) and base.count("/") == 1 and not Path(base).exists() and base != hub_id:
        right = f"{hub_id}; or, where these are the same weights, model.hub_id: {base}"
        faults.add("an adapter of another base model", f"{path}: {BASE}", base, right)
    for key in sorted(said.keys() - _NO_MATTER - _PEFT_DEFAULTS.keys()):
        value = said[key]
        if value not in (None, False, [], {}) and not equal(value, UNUSED.get(key, UNSAID)):
            faults.add(
                "an option that innerloop has no reading of", f"{path}: {key}", value, "null, or an adapter without"
            )


def _check_modules(path: Path, model: nn.Module, targets: set[str], faults: Faults) -> None:
    """Those of the weights have to be those of the settings."""
    try:
        with safe_open(path, framework="pt") as file:
            stored = set(file.keys())
    except (SafetensorError, OSError) as error:
        faults.add(f"not a safetensors file ({error})", str(path), expected="the file as PEFT wrote it")
        return
    found = {match[1] for name in stored if (match := _STORED.fullmatch(name))}
    known = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if not found or found == targets or not found <= known:  # else reading the values says what is wrong
        return
    leaves = sorted({name.rpartition(".")[2] for name in found})
    layers = sorted({int(part) for name in found for part in name.split(".") if part.isdigit()})
    right = f"target_modules: [{', '.join(leaves)}], layers: {layers}, the modules of {path}"
    faults.add("not the modules that the adapter is on", "method.lora", f"{len(targets)} modules", right)
