"""Where training starts: what a finished run learned, or a PEFT adapter, in place of the model's own values.

started   a session -> the session that starts where its config says

The folder may come from somebody else: artifacts/finished.py and artifacts/adapter_folder.py check it before its use.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import torch

from innerloop.artifacts.adapter_folder import CONFIG, WEIGHTS, check_model, read_adapter
from innerloop.artifacts.finished import Finished, finished
from innerloop.artifacts.peft_adapter import read_peft_adapter
from innerloop.engine.session import Session, StartValues
from innerloop.errors import Fault, Faults, UserError
from innerloop.files import MANIFEST, file_digest
from innerloop.loading.models import known_hub_id
from innerloop.loading.weights import stored_tensors, weight_files
from innerloop.numerics.tensors import matching
from innerloop.runs.reloading import check_shared
from innerloop.spaces.lora import LoraSettings

KEY = "start_from"


def started(session: Session) -> Session:
    """The same session, its values read and checked; unchanged where the config names no start.

    Raises UserError for a folder that holds neither a finished run nor an adapter, for one of another base, or of other
    settings than the config's; DamagedError for weights that aren't as the run wrote them.
    """
    folder = session.config.start_from
    if folder is None:
        return session
    if not folder.is_dir():
        raise UserError(
            Fault("there is no such folder", KEY, str(folder), "a finished run, or a PEFT adapter's folder")
        )
    if (folder / MANIFEST).exists():
        return _from_run(session, finished(folder))
    if (folder / CONFIG).exists():
        return _from_adapter(session, folder)
    right = "a finished run, or a PEFT adapter's folder"
    if (folder / "config.json").exists():
        right = f"a model is where all parameters start: model.name: {folder}"
    raise UserError(Fault("neither a finished run nor an adapter", KEY, str(folder), right))


def _from_run(session: Session, run: Finished) -> Session:
    check_shared(run)
    own, theirs, exported = (
        session.row.space,
        run.config.method.row.space,
        run.folder / run.config.method.row.space.exported,
    )
    faults = Faults()
    if theirs is not own:
        problem = f"this run trained {theirs.title}, and {session.config.method.name} trains {own.title}"
        right = f"model.name: {exported}" if theirs.exported == "model" else f"a run that trained {own.title}"
        faults.add(problem, KEY, str(run.folder), right)
    elif (ours := _settings(session)) and (others := run.config.method.lora_settings()):
        for name in ("r", "lora_alpha", "target_modules", "use_rslora", "layers"):
            if (here := getattr(ours, name)) != (there := getattr(others, name)):
                faults.add("not what the run's adapter has", f"method.lora.{name}", here, repr(there))
    if run.fingerprint != session.model.fingerprint:
        faults.add("a run of another base model", KEY, run.name, f"one of the weights of {session.model.name}")
    faults.raise_if_any()
    run.check_weights(exported)
    if theirs.exported == "model":
        check_model(exported)
        return _whole(session, exported)
    lora = run.config.method.lora_settings()
    assert lora is not None
    names = (run.config.model.hub_id or known_hub_id(run.name, run.source), run.source)
    values = read_adapter(exported, session.model.model, lora=lora, base_names=names)
    return replace(session, start=StartValues(values, _digest(exported)))


def _from_adapter(session: Session, folder: Path) -> Session:
    lora = _settings(session)
    if lora is None:
        problem = f"an adapter, and {session.config.method.name} trains {session.row.space.title}"
        right = "a method that trains LoRA; or, as model.name, the model with the adapter merged into it"
        raise UserError(Fault(problem, KEY, str(folder), right))
    hub_id = session.config.model.hub_id or session.model.hub_id
    values = read_peft_adapter(folder, session.model.model, lora=lora, hub_id=hub_id)
    return replace(session, start=StartValues(values, file_digest(folder / WEIGHTS)))


def _whole(session: Session, exported: Path) -> Session:
    """The model is the session's own where all parameters are trained: it takes the values itself."""
    parameters, stored = dict(session.model.model.named_parameters()), dict(stored_tensors(exported))
    found = {name: value for name, value in stored.items() if name in parameters}
    with torch.no_grad():
        for name in matching(parameters, found):
            parameters[name].copy_(found[name])
    return replace(session, start=StartValues({}, _digest(exported)))


def _settings(session: Session) -> LoraSettings | None:
    """Without what only training reads."""
    lora = session.config.method.lora_settings()
    return lora and replace(lora, lora_dropout=0.0)


def _digest(folder: Path) -> str:
    return hashlib.sha256("".join(file_digest(path) for path in weight_files(folder)).encode()).hexdigest()
