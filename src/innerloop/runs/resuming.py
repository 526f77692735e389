"""Whether a run may continue in its folder: its config and inputs have to be those that it was begun with.

Earlier        what an earlier start left in a run's folder
earlier_start  the folder -> Earlier; None where there is nothing to continue
same_config    the config as the run was begun, or every difference in one error
same_inputs    the same for weights, examples and tokens
inputs         the digests that are compared
"""

import hashlib
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from innerloop.config.loading import KEYS, RunConfig
from innerloop.config.output_dir import read_manifest
from innerloop.config.schema import ABSENT, get
from innerloop.data.encoding import EncodedTask
from innerloop.data.token_ids import Encoded
from innerloop.engine.session import Session
from innerloop.errors import Fault, Faults, UserError, did_you_mean
from innerloop.machine import environment
from innerloop.runs.checkpoint import Found, Saved, newest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FREE = {"output_dir", "report_to"}  # the folder may have been moved; a tracker changes no number
INPUTS = {"model": "the base model's weights", "data": "the examples", "tokenizer": "how examples become tokens"}
INPUTS["start"] = "what training starts from"
_LAST = "tasks_per_forward"
_AUTO = f"memory.{_LAST}"  # `auto` is what it was resolved to when the run was begun
_DTYPE, _A_STEP = "model.dtype", "outer.tasks_per_step"  # the same
_DATE = "tasks.date"  # the day that the run was begun
_NAMED = 5


@dataclass
class Earlier:
    """manifest: as it was written; found: the newest sound checkpoint, of step `step`; changes: the allowed ones."""

    manifest: dict[str, Any]
    found: Found
    step: int
    allowed: frozenset[str] = frozenset()
    changes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def is_done(self) -> bool:
        return self.manifest["status"] == "done"

    def take(self) -> Saved | None:
        """The checkpoint's state, which is not kept here then: it is as large as what is trained, and more."""
        state, self.found = self.found.state, self.found._replace(state=None)
        return state

    def host(self) -> dict[str, Any]:
        """For the manifest: this start, after those before it."""
        before = self.manifest.get("host", {})
        start = {
            "step": self.step,
            "after": self.manifest["status"],
            "skipped": {path.name: wrong for path, wrong in self.found.skipped},
            "other_environment": other_environment(before),
        }
        return {"restarts": [*before.get("restarts", []), start]}

    def lines(self) -> list[str]:
        """For people."""
        skipped = [f"skipped  {path}: {wrong}" for path, wrong in self.found.skipped]
        if self.found.path is None:
            said = "no checkpoint of it can be used" if skipped else "it had no checkpoint yet"
            return [*skipped, f"resumed  from the start: {said}"]
        other = other_environment(self.manifest.get("host", {}))
        last_bits = [f"note     other {', '.join(other)} than before: last bits may differ"] if other else []
        return [*skipped, f"resumed  from step {self.step} ({self.found.path})", *last_bits]


def earlier_start(folder: Path, *, allowed: Iterable[str] = ()) -> Earlier | None:
    """Raises UserError for a folder that holds something else, and for keys to allow that there are not."""
    faults = Faults()
    known = {*KEYS, *INPUTS}
    for key in sorted(set(allowed) - known):
        faults.add("no such key", "--allow-change", key, did_you_mean(key, known))
    faults.raise_if_any()
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    if "inputs" not in manifest:
        raise UserError(Fault("begun by an innerloop that could not go on", "output_dir", str(folder), "a new folder"))
    found = newest(folder)
    return Earlier(manifest, found, found.state.step if found.state else 0, frozenset(allowed))


def same_config(earlier: Earlier, config: RunConfig) -> RunConfig:
    """The config, with what the run resolved when it was begun. Raises UserError with each key that changed."""
    before, now = earlier.manifest["config"], config.resolved()
    faults = Faults()
    for key in KEYS:
        old, new = get(before, key), get(now, key)
        if key == _DATE and new is ABSENT and old is not ABSENT:
            config = config.model_copy(update={"tasks": config.tasks.model_copy(update={"date": old})})
        elif key == _DTYPE and new == "auto":
            config = config.model_copy(update={"model": config.model.model_copy(update={"dtype": old})})
        elif key == _AUTO and new == "auto":
            config = config.model_copy(update={"memory": config.memory.model_copy(update={_LAST: old})})
        elif key == _A_STEP and new == "all":
            config = config.model_copy(update={"outer": config.outer.model_copy(update={"tasks_per_step": old})})
        elif old != new and key not in FREE:
            _changed(earlier, faults, key, old, new)
    faults.raise_if_any()
    return config


def same_inputs(earlier: Earlier, session: Session) -> None:
    """Raises UserError with what is another model, example or tokenization than when the run was begun."""
    before, now = earlier.manifest["inputs"], inputs(session)
    faults = Faults()
    weights, others = earlier.manifest["model"]["fingerprint"], session.model.fingerprint
    if weights != others:
        _changed(earlier, faults, "model", weights, others)
    if (old := before.get("start")) != (new := now.get("start")):
        _changed(earlier, faults, "start", old, new)
    for kind in ("data", "tokenizer"):
        old, new = before[kind], now[kind]
        if kind == "tokenizer":  # other examples have other tokens
            alike = {task for task in old.keys() & new.keys() if before["data"][task] == now["data"].get(task)}
            old, new = ({task: digests[task] for task in alike} for digests in (old, new))
        different = sorted(task for task in old.keys() | new.keys() if old.get(task) != new.get(task))
        if different:
            told = ", ".join(_told(task, old, new) for task in different[:_NAMED])
            more = f" and {len(different) - _NAMED} tasks more" if len(different) > _NAMED else ""
            _changed(earlier, faults, kind, ABSENT, told + more, text=_other_text(before, now, different))
    faults.raise_if_any()


def inputs(session: Session) -> dict[str, Any]:
    """Digests of each task's examples and of their tokens, and of what training starts from."""
    every = {task.task.name: task for task in (*session.train, *session.validation, *session.held_out)}
    return {
        "data": {name: _digest(example.id for example in _examples(task)) for name, task in every.items()},
        "tokenizer": {name: _token_digest([*task.pool, *task.test]) for name, task in every.items()},
        **({"start": session.start.digest} if session.start else {}),
        "text": {name: _text_digest(task, session.model.tokenizer) for name, task in every.items()},
    }


def other_environment(host: Mapping[str, Any]) -> list[str]:
    """What numbers may depend on and is another now: threads, device, versions."""
    before, now = (_flat(each) for each in (host.get("environment", {}), environment()))
    return sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))


def _changed(earlier: Earlier, faults: Faults, key: str, old: Any, new: Any, *, text: bool = False) -> None:
    said = {name: None if value is ABSENT else value for name, value in (("before", old), ("now", new))}
    if key in earlier.allowed:
        earlier.changes.append({"step": earlier.step, "key": key, **said})
        return
    what = f"{INPUTS[key]} changed" if key in INPUTS else "changed"
    if key == "tokenizer" and text:
        what = "the text of the prompts changed (by the chat template)"
    right = f"{said['before']!r}, as the run was begun; or " if key not in ("data", "tokenizer") else ""
    faults.add(f"{what} since the run was begun", key, said["now"], f"{right}--allow-change {key}, which is recorded")


def _told(task: str, old: Mapping[str, str], new: Mapping[str, str]) -> str:
    return f"{task} (new)" if task not in old else f"{task} (gone)" if task not in new else task


def _examples(task: EncodedTask) -> Iterable[Any]:
    return (*task.task.pool, *task.task.test)


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _token_digest(examples: Sequence[Encoded]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        labels = (*[-100] * example.prompt, *example.scored)  # as they were digested when they were kept
        for values in (example.tokens, labels):
            digest.update(array("q", (len(values), *values)))
    return digest.hexdigest()[:16]


def _text_digest(task: EncodedTask, tokenizer: "PreTrainedTokenizerBase") -> str:
    """Of the first example as the model reads it: enough to tell another text from other tokens of the same."""
    first = next(iter((*task.pool, *task.test)), None)
    return _digest([str(tokenizer.decode(list(first.tokens)))] if first else [])


def _other_text(before: Mapping[str, Any], now: Mapping[str, Any], tasks: Sequence[str]) -> bool:
    texts: Mapping[str, str] = before.get("text", {})
    return any(name in texts and texts[name] != now["text"].get(name) for name in tasks)


def _flat(tree: Mapping[str, Any]) -> dict[str, str]:
    """Versions by the name of their package, beside the other facts."""
    packages: Mapping[str, str] = tree.get("packages", {})
    return {key: json.dumps(value) for key, value in tree.items() if key != "packages"} | dict(packages)
