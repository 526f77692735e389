"""The folder of a finished run -> what it learned.

load_run        -> Learned
task_adapter    the values of one task, from a run of an adapter for each task
at_its_base     a run's config, with the place of its model as the model's name; base_of: that of an adapter's base
check_shared    whether there is one initialization

A run may come from somebody else: artifacts/finished.py and artifacts/adapter_folder.py check it before it is used.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from innerloop.artifacts.adapter_folder import check_model, read_adapter
from innerloop.artifacts.finished import Finished, finished
from innerloop.artifacts.rates_file import read_rates
from innerloop.config.loading import RunConfig
from innerloop.engine.parts import fresh_rates_of, make_space
from innerloop.errors import Fault, Faults, UserError
from innerloop.files import at_home, file_name
from innerloop.loading.in_memory import in_memory
from innerloop.loading.models import LoadedModel, known_hub_id, load
from innerloop.machine import chosen_device
from innerloop.numerics.tensors import TensorSet
from innerloop.runs.learned import Learned

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_run(
    folder: str | Path,
    *,
    base: str | Path | None = None,
    dtype: str | None = None,
    device: str | None = None,
    model: "PreTrainedModel | LoadedModel | None" = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
) -> Learned:
    """What a finished run learned.

    >>> load_run("runs/done", device="cpu")
    Learned(meta-lora on ..., runs/done)

    base           where its base model is now: a folder, hub id or GGUF file with the very weights it was trained on
    dtype, device  of the base model's weights; by default the run's
    model          in place of these: the base model itself, which stays as it is, with its tokenizer
    Raises UserError where there is none, or its base model is another now; DamagedError where its weights changed.
    """
    _check_choices(folder, dtype, device)
    _check_model(model, tokenizer, {"base": base, "dtype": dtype, "device": device})
    folder = Path(folder)
    run = finished(folder)
    config, row = run.config, run.config.method.row
    check_shared(run)
    exported = folder / row.space.exported
    run.check_weights(exported)
    adapter = row.space.exported == "adapter"
    if not adapter:
        check_model(exported)
    if model is None:
        place = at_its_base(run, base).model
        own: dict[str, Any] = {"revision": place.revision, "attn_implementation": place.attn_implementation}
        chosen = chosen_device(device or config.model.device)
        loaded = load(place.name, dtype=dtype or config.model.dtype, device=chosen, **own)
    elif adapter:
        loaded = model if isinstance(model, LoadedModel) else in_memory(model, tokenizer)
    else:
        raise UserError(_whole_model(run, "model", type(model).__name__))
    # An adapter is read before its space is made: no more is allocated than its file was found to hold.
    shared = _adapter(exported, run, loaded) if adapter else {}
    # Without what training saved on: one task adapts in float32, with any optimizer.
    memory = config.memory.model_copy(update={"lean": False, "offload": False})
    space = make_space(config.model_copy(update={"memory": memory}), loaded.model)
    if adapter:
        space.shared = {name: value.to(loaded.model.device) for name, value in shared.items()}
    rates = fresh_rates_of(config, space)
    return Learned(config, loaded, space, folder, rates=rates and read_rates(run, rates))


def _check_choices(folder: object, dtype: object, device: object) -> None:
    """Raises UserError for arguments of another type; what a text names is checked where it is used."""
    faults = Faults()
    if not isinstance(folder, str | Path):
        faults.add("not a folder", "folder", folder, "the output_dir of a finished run")
    for name, value in (("dtype", dtype), ("device", device)):
        if value is not None and not isinstance(value, str):
            faults.add("not a name", name, value, "text, such as float32 or cpu; or leave it out")
    faults.raise_if_any()


def _check_model(model: object, tokenizer: object, others: dict[str, Any]) -> None:
    """Raises UserError for what can't be told beside a model, or without one."""
    faults = Faults()
    for name, value in others.items():
        if model is not None and value is not None:
            faults.add("a model is given, with its place, dtype and device", name, str(value), "leave it out")
    if model is None and tokenizer is not None:
        faults.add("a tokenizer without its model", "tokenizer", type(tokenizer).__name__, "model=, or leave it out")
    faults.raise_if_any()


def check_shared(run: Finished) -> None:
    """Raises UserError for a run of an adapter for each task: it has no initialization that they share."""
    method, folder = run.config.method.name, run.folder
    if run.config.method.row.one_task:
        one = min((folder / "adapters").glob("*"), default=folder)
        hint = f"a run that shares one initialization; its adapters are ready to use, as {one}"
        raise UserError(Fault(f"{method} trained one adapter for each task", str(folder), expected=hint))


def at_its_base(run: Finished, base: str | Path | None = None) -> RunConfig:
    """Its config, with the model's name as the place to read it from: the base of an adapter, or what was trained.

    base  where that of an adapter is now
    """
    row = run.config.method.row
    if row.space.exported == "adapter":
        place = base_of(run, base)
    elif base is None:
        place = str((run.folder / row.space.exported).resolve())  # absolute: never taken for a hub id
    else:
        raise UserError(_whole_model(run, "base", str(base)))
    revision = run.config.model.revision if place == run.name else None  # of a folder there is none
    model = run.config.model.model_copy(update={"name": place, "revision": revision})
    return run.config.model_copy(update={"model": model})


def _whole_model(run: Finished, where: str, given: str) -> Fault:
    method = run.config.method
    problem = f"{method.name} trained {method.row.space.title}: the run holds its whole model"
    return Fault(problem, where, given, "leave it out")


def task_adapter(folder: Path, task: str, model: LoadedModel) -> TensorSet:
    """The values of `task`'s own adapter, from the folder of a finished run of one adapter for each task.

    Raises UserError and DamagedError as `load_run` does.
    """
    run, place = finished(folder), folder / "adapters" / file_name(task)
    run.check_weights(place)
    return _adapter(place, run, model)


def base_of(run: Finished, base: str | Path | None = None) -> str:
    """The name that the base model of a run's adapter is read by: `base`, or where it was, or beside the run as it was.

    Raises UserError where there is none of these folders any more.
    """
    if base is not None:
        return str(base)
    if known_hub_id(run.name, run.source):
        return run.name
    # A folder may have been named relative to where the run was started, and moved together with the run.
    output, source = run.config.output_dir, Path(run.source)
    moved = [run.folder / os.path.relpath(source, output)] if output.is_absolute() else []
    for place in (source, at_home(run.name), *moved):
        if place.exists():
            return str(place)
    right = "load_run(folder, base=...), or innerloop adapt --base: where the base model is now"
    raise UserError(Fault("the run's base model is not there any more", "model.name", run.name, right))


def _adapter(place: Path, run: Finished, model: LoadedModel) -> TensorSet:
    if model.fingerprint != run.fingerprint:
        raise UserError(Fault("not the weights this adapter was trained on", f"model {model.name}", model.fingerprint))
    lora = run.config.method.lora_settings()
    assert lora is not None
    hub_id = run.config.model.hub_id or known_hub_id(run.name, run.source)
    return read_adapter(place, model.model, lora=lora, base_names=(hub_id, run.source))
