"""Training as a config says, from its first check to the folder on disk.

meta_train   writes the adapter or model, manifest.json and metrics.jsonl to the config's output_dir
is_done      whether a config's run is done already
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from innerloop.config.document import to_yaml
from innerloop.config.loading import RunConfig, load_config
from innerloop.config.output_dir import GO_ON, empty_folder, read_manifest
from innerloop.engine.groundwork import Groundwork, Say, checked, groundwork
from innerloop.engine.hidden_states import HiddenStates
from innerloop.engine.session import Session, example_counts, prepare, roles
from innerloop.engine.stopping import held, stoppable
from innerloop.errors import Fault, Faults, ResumableError, RunError, UserError, redacted
from innerloop.files import locked, remove_leftovers, write_text
from innerloop.loading.models import LoadedModel
from innerloop.machine import environment
from innerloop.runs.adapters import Forecasting, MetaRun, OnEvaluation, OnStep
from innerloop.runs.checkpoint import Checkpoints, Found, newest
from innerloop.runs.header import Header, header_of
from innerloop.runs.journal import Journal
from innerloop.runs.learned import Learned
from innerloop.runs.resuming import Earlier, earlier_start, inputs, same_config, same_inputs
from innerloop.runs.starting import started
from innerloop.trackers import reporting

DISK = (OSError, SafetensorError)  # what a disk that is full or broken raises


def meta_train(
    config: RunConfig | Path | str | Mapping[str, Any] | Groundwork,
    *,
    model: LoadedModel | None = None,
    store: HiddenStates | None = None,
    resume: bool = False,
    allow_change: Iterable[str] = (),
    on_header: Callable[[Header], None] | None = None,
    on_resume: Callable[[Earlier], None] | None = None,
    on_step: OnStep | None = None,
    on_evaluation: OnEvaluation | None = None,
    on_stage: Say | None = None,
    forecaster: Forecasting | None = None,
) -> Learned:
    """Train as the config says and write what was learned to its output_dir.

    config        a RunConfig, a YAML file, the same as a mapping, or what `runs.groundwork.checked` found of it
    model, store  a loaded model and its hidden states below the cut, to share between runs
    resume        continue an earlier start in output_dir, to the same numbers, bit for bit; begin if there is none
    allow_change  config keys, or model, data, tokenizer, that may differ from the earlier start; recorded
    on_header     called before the first step, with what the run is going to do
    on_resume     called before on_header, with the earlier start that is continued
    on_step       called after each step, with its metrics
    on_evaluation called after each evaluation on the validation tasks, with its numbers and the best so far
    on_stage      called before the first step with the name of each stage, and its progress
    forecaster    a planning.forecaster.Forecaster. If given, memory and time are predicted first and passed to it; the
                  first step is then measured, and both go to the manifest
    In the main thread SIGINT, SIGTERM and SIGUSR1 save a checkpoint and raise KeyboardInterrupt.
    Raises UserError for a config or data that can't be used, before anything is written; RunError when a loss or
    gradient is not finite, and ResumableError where the disk is full and a checkpoint is there to go on from.
    """
    _check_arguments(config, model, store)
    with stoppable(), ExitStack() as stack:
        if resume:
            given = config.config if isinstance(config, Groundwork) else config
            settings = given if isinstance(given, RunConfig) else load_config(given)
            before = _begun(settings.output_dir, stack, allow_change)
            settings = same_config(before, settings) if before else settings
            ground = groundwork(settings, model=model, fresh=before is None, say=on_stage)
        else:
            before, ground = None, checked(config, model=model, fresh=True, say=on_stage)
        settings, folder = ground.config, ground.config.output_dir
        say = on_stage or (lambda *_: None)
        session = prepare(settings, model=model, store=store, ground=ground, say=say)
        session = started(session.settled())
        say("preparing the first step", 0, 0)
        if before:
            same_inputs(before, session)
            if on_resume:
                on_resume(before)
        header = header_of(session)
        if on_header:
            on_header(header)
        expected = forecaster.begins(session) if forecaster and not before else {}
        if not before:
            empty_folder(folder)
            stack.enter_context(locked(folder, "output_dir"))
        try:
            remove_leftovers(folder)
            said = _said(session, header, expected, before)
            measures = forecaster if "forecast" in said else None
            report = stack.enter_context(reporting(settings.report_to, folder, settings.flat()))
            told = {"on_step": on_step, "on_evaluation": on_evaluation, "say": on_stage, "report": report}
            run = _opened(session, said, before, forecaster=measures, **told)
            return _finished(run)
        except DISK as error:
            raise _refused(folder, error) from error


def _check_arguments(config: Any, model: Any, store: Any) -> None:
    """Raises UserError for arguments of another type. (Whether a mapping or file is a config, reading it tells.)"""
    faults = Faults()
    if model is not None and not isinstance(model, LoadedModel):
        right = "innerloop.loading.models.load(name), which has a tokenizer and a fingerprint too; or leave it out"
        faults.add("not a loaded model", "model", type(model).__name__, right)
    if store is not None and not isinstance(store, HiddenStates):
        faults.add("not a store of hidden states", "store", type(store).__name__, "HiddenStates(); or leave it out")
    faults.raise_if_any()


def is_done(config: RunConfig) -> bool:
    """Whether the run in the folder is done. Files that a kill right after its end left there are removed.

    Raises UserError where the folder has the finished run of another config.
    """
    folder = config.output_dir
    manifest = read_manifest(folder)
    if manifest is None or manifest["status"] != "done":
        return False
    same_config(Earlier(manifest, Found(None, None, []), 0), config)
    with locked(folder, "output_dir"):
        Checkpoints(folder, keep=1).remove()
        remove_leftovers(folder)
    return True


def _opened(session: Session, said: dict[str, Any], before: Earlier | None, **told: Any) -> MetaRun:
    """A run with its manifest and run.yaml written."""
    start = before.take() if before else None
    folder = session.config.output_dir
    journal = Journal(folder, said, metrics=start.metrics if start else "")
    write_text(folder / "run.yaml", to_yaml(session.config.resolved()))
    run = MetaRun(session, journal, start=start, **told)
    for damaged, _ in before.found.skipped if before else []:
        run.checkpoints.set_aside(damaged)
    return run


def _begun(folder: Path, stack: ExitStack, allow_change: Iterable[str]) -> Earlier | None:
    """What can be gone on with, the folder's lock taken."""
    if read_manifest(folder) is None:
        return None
    stack.enter_context(locked(folder, "output_dir"))
    before = earlier_start(folder, allowed=allow_change)
    if before and before.is_done:
        raise UserError(Fault("this run is done", "output_dir", str(folder), "load_run, or another folder"))
    return before


def _said(session: Session, header: Header, expected: Mapping[str, Any], before: Earlier | None) -> dict[str, Any]:
    """The manifest at the start."""
    loaded, earlier = session.model, before.manifest if before else {}
    predicted = expected or earlier.get("forecast")
    changes = [*earlier.get("changes", []), *(before.changes if before else [])]
    return {
        "config": session.config.resolved(),
        "model": {"name": loaded.name, "source": loaded.source, "fingerprint": loaded.fingerprint},
        "plan": header.facts(),
        **({"forecast": predicted} if predicted else {}),
        "roles": roles(session),
        "examples": example_counts(session),
        "inputs": inputs(session),
        **({"changes": changes} if changes else {}),
        "host": {"environment": environment()} | (before.host() if before else {}),
    }


def _finished(run: MetaRun) -> Learned:
    """Runs it, and says in its manifest how that ended."""
    journal = run.journal
    try:
        learned = run.run()
        with suppress(KeyboardInterrupt), held():  # it is done: nothing is left to stop
            journal.finish("done", **run.facts())
            run.checkpoints.remove()
        return learned
    except KeyboardInterrupt as stop:
        with held(), suppress(*DISK):
            run.save()
            journal.finish("interrupted", reason=str(stop) or "KeyboardInterrupt")
        raise
    except Exception as error:
        refused = isinstance(error, DISK) or isinstance(error.__cause__, DISK)  # an export's, in words
        with suppress(*DISK):
            journal.finish("interrupted" if refused else "failed", reason=redacted(str(error)) or type(error).__name__)
        if refused:
            raise _refused(run.folder, error) from error
        raise


def _refused(folder: Path, error: Exception) -> RunError:
    """What to say where the disk refused something."""
    kept = newest(folder).path
    if kept is None:
        return RunError(f"{error}; there is no checkpoint yet: make room and begin again ({GO_ON})")
    return ResumableError(f"{error}; {kept} is kept: make room and go on from there ({GO_ON})")
