"""What was learned, as a PEFT adapter folder or a Hugging Face model folder, each read back plainly.

export_adapter    LoRA values -> adapter_config.json and adapter_model.safetensors, written by PEFT
merged_parameters   LoRA values in the weights that they adapt, by PEFT
export_model      parameter values -> config.json and model.safetensors, written by transformers
write_card        the text of an export's README.md
check_place       whether an export may go to a folder
reload_logits     the logits of an exported folder, read by transformers and PEFT alone
"""

import copy
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from innerloop.artifacts.adapter_folder import check_files
from innerloop.errors import Fault, Faults, RunError, UserError
from innerloop.files import replaced_folder, write_text
from innerloop.loading.models import load_model, no_bars
from innerloop.numerics.tensors import TensorSet, not_finite
from innerloop.spaces.lora import LoraSettings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MARKER = "innerloop_export.json"  # names the files of an export, so that a later one may replace it


def export_adapter(
    folder: Path,
    model: nn.Module,
    *,
    values: Mapping[str, Tensor],
    lora: LoraSettings,
    base_name: str,
    dtype: torch.dtype = torch.float32,
    card: str = "",
    beside: Mapping[str, str] | None = None,
) -> None:
    """Writes `values` as a PEFT adapter of `base_name`; `model`, the base, is only looked at.

    values: "<module path>.lora_A" (r, in) and "<module path>.lora_B" (out, r). Plain PEFT loads the base by
    `base_name`, so a hub id serves others; where it isn't known, "" names none. card: the text of README.md; beside:
    other files' texts, by name. An earlier export in `folder` is replaced. Raises UserError for a folder that holds
    anything else and for values that do not fit the model, RunError for values that are not finite.
    """
    wrapped, targets = _with_adapter(_skeleton(model, base_name), values, lora)
    tensors = {f"base_model.model.{name}.weight": _plain(value, dtype) for name, value in values.items()}
    cast(Any, wrapped.peft_config["default"]).target_modules = targets  # PEFT shortens a long list, in no fixed order
    state = {f"{name.removesuffix('weight')}default.weight": value for name, value in tensors.items()}
    with _exported(folder) as fresh:
        wrapped.save_pretrained(str(fresh), save_embedding_layers=False, state_dict=state)
        if not base_name:
            _name_no_base(fresh / "adapter_config.json")
        write_card(fresh, card)
        _write_beside(fresh, beside or {})


def export_model(
    folder: Path,
    model: nn.Module,
    *,
    values: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    card: str = "",
    beside: Mapping[str, str] | None = None,
) -> None:
    """Writes `model` with `values` in place of its parameters; `model` itself is only looked at.

    values: parameter name -> tensor; parameters not named keep the model's own values. All are stored in `dtype`,
    by default the model's, and tied weights once. Raises as `export_adapter` does.
    """
    parameters = dict(model.named_parameters())
    _check_finite(values)
    _check_fit(values, parameters)
    _check_shapes(values, {name: parameters[name] for name in values})
    plain = _skeleton(model)
    state = {name: value.detach() for name, value in (*model.named_buffers(), *parameters.items())}
    state |= {name: _plain(value, dtype or parameters[name].dtype) for name, value in values.items()}
    plain.load_state_dict(state, strict=False, assign=True)
    plain.tie_weights()
    with _exported(folder) as fresh:
        with no_bars():
            plain.save_pretrained(fresh)
        if tokenizer is not None:
            tokenizer.save_pretrained(fresh)
        write_card(fresh, card)
        _write_beside(fresh, beside or {})


@torch.no_grad()
def merged_parameters(model: nn.Module, *, values: Mapping[str, Tensor], lora: LoraSettings) -> TensorSet:
    """The weights of the adapted modules with `values` merged into them by PEFT, in float32; `model` stays as it is.

    Raises as `export_adapter` does.
    """
    from peft import set_peft_model_state_dict

    plain, names = _skeleton(model), {name.rpartition(".lora_")[0] + ".weight" for name in values}
    own = dict(model.named_parameters())
    plain.load_state_dict({name: _plain(own[name]) for name in names & own.keys()}, strict=False, assign=True)
    wrapped, _ = _with_adapter(plain, values, lora)
    state = {f"base_model.model.{name}.weight": _plain(value) for name, value in values.items()}
    set_peft_model_state_dict(wrapped, state, low_cpu_mem_usage=True)
    merged = dict(cast(Any, wrapped).merge_and_unload(safe_merge=True).named_parameters())
    return {name: merged[name].detach() for name in sorted(names)}


@torch.no_grad()
def reload_logits(
    folder: Path, tokens: Tensor, *, base: str | None = None, revision: str | None = None, dtype: str = "float32"
) -> Tensor:
    """Logits (B, S, V), float32 on the CPU, of an exported adapter or model, for unpadded tokens (B, S).

    base: where to read an adapter's base model; by default the one that the adapter names.
    Raises UserError for a folder that holds links or code: PEFT would read pickle where it finds no safetensors.
    """
    faults = Faults()
    check_files(folder, faults)
    faults.raise_if_any()
    model: Any
    adapter = folder / "adapter_config.json"
    if adapter.exists():
        from peft import PeftModel

        named = json.loads(adapter.read_text())["base_model_name_or_path"]
        if not (base or named):
            raise UserError(Fault("names no base model", str(adapter), expected="base=: where it is"))
        with _old_name():
            plain = load_model(base or named, dtype=dtype, revision=revision)
            model = PeftModel.from_pretrained(plain, str(folder), torch_device="cpu")
    else:
        model = load_model(str(folder.resolve()), dtype=dtype)  # absolute: never taken for a hub id
    return model.eval()(input_ids=tokens.cpu(), use_cache=False).logits.float()


def _with_adapter(
    bare: "PreTrainedModel", values: Mapping[str, Tensor], lora: LoraSettings
) -> tuple["PeftModel", list[str]]:
    """`bare` as PEFT adapts it, the adapter without storage, and its modules. Raises as `export_adapter` does."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    _check_finite(values)
    targets = sorted({name.rpartition(".lora_")[0] for name in values})
    _check_fit(targets, [name for name, module in bare.named_modules() if isinstance(module, nn.Linear)])
    config = LoraConfig(
        task_type="CAUSAL_LM",
        target_modules=targets,
        r=lora.r,
        lora_alpha=cast(int, lora.lora_alpha),  # PEFT only divides by it
        lora_dropout=lora.lora_dropout,
        use_rslora=lora.use_rslora,
        inference_mode=True,
    )
    with _old_name():
        wrapped = cast("PeftModel", get_peft_model(bare, config, low_cpu_mem_usage=True))
    expected = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    _check_shapes({f"base_model.model.{name}.weight": value for name, value in values.items()}, expected)
    return wrapped, targets


@contextmanager
def _old_name() -> Iterator[None]:
    """PEFT reads an attribute that newer transformers call by another name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def _skeleton(model: nn.Module, name: str = "") -> "PreTrainedModel":
    """The model's class with the model's config, without storage."""
    live = cast("PreTrainedModel", model)
    config = copy.deepcopy(live.config)
    config.name_or_path = name
    with torch.device("meta"):
        bare = type(live)(config)
    bare.generation_config = copy.deepcopy(live.generation_config)
    return bare


def _name_no_base(path: Path) -> None:
    """PEFT writes an empty name, which it would then look for."""
    said = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**said, "base_model_name_or_path": None}, indent=2, sort_keys=True), encoding="utf-8")


def _write_beside(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        write_text(folder / name, text)


def write_card(folder: Path, card: str) -> None:
    """In place of PEFT's own, which is a form to fill in."""
    if card:
        write_text(folder / "README.md", card)


def _plain(value: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return value.detach().to("cpu", dtype).contiguous()


def _check_finite(values: Mapping[str, Tensor]) -> None:
    broken = not_finite(values)
    if broken:
        raise RunError(f"{len(broken)} of {len(values)} tensors hold NaN or infinity, {broken[0]} first: not exported")


def _check_fit(names: Iterable[str], known: Iterable[str]) -> None:
    names, known = set(names), set(known)
    faults = Faults()
    if not names:
        faults.add("there is nothing to export")
    for name in sorted(names - known):
        faults.add("the model has no such module or parameter", value=name)
    faults.raise_if_any()


def _check_shapes(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    faults = Faults()
    for name in sorted(given.keys() | expected.keys()):
        value, wanted = (list(tensors[name].shape) if name in tensors else "none" for tensors in (given, expected))
        if value != wanted:
            faults.add("the value does not fit the model", name, value, str(wanted))
    faults.raise_if_any()


@contextmanager
def _exported(folder: Path) -> Iterator[Path]:
    check_place(folder)
    try:
        with replaced_folder(folder) as fresh:
            yield fresh
            (fresh / MARKER).write_text(json.dumps({"files": _files(fresh)}, indent=1))
    except (OSError, SafetensorError) as error:
        raise UserError(Fault(f"can't write the export: {error}", str(folder))) from error


def check_place(folder: Path) -> None:
    """Raises UserError for a folder that holds anything but an earlier export: nothing else is replaced."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(Fault("a file is in the way of the export", str(folder), expected="a new folder"))
    try:
        ours = {MARKER, *json.loads((folder / MARKER).read_text())["files"]}
    except (OSError, ValueError, LookupError, TypeError):
        ours = set[str]()
    if foreign := sorted(set(_files(folder)) - ours):
        expected = "a new or empty folder, or an earlier export as it was written"
        raise UserError(Fault("the folder holds other files", str(folder), foreign[:5], expected))


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
