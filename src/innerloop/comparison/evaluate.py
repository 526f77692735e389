"""An initialization's scores, piece by piece on disk: what was measured once is not measured again.

score_pieces   every piece that has no file yet
tuned          what validation tasks chose, for each k
forgotten      how far the adapted models are from the base on other text
protocol_of    what is measured of a finished run
to_score       the tasks that are going to be scored, checked
evaluate       all of it, with intervals: `innerloop eval`
lines          the same for people
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from innerloop.artifacts.finished import finished
from innerloop.config.loading import RunConfig
from innerloop.data.encoding import EncodedTask
from innerloop.engine.groundwork import Groundwork, groundwork
from innerloop.engine.session import prepare
from innerloop.errors import Fault, Faults, UserError
from innerloop.evaluation.forgetting import continuations, forgetting, shipped_prompts
from innerloop.evaluation.kshot import Chunk, adapt, draw_support
from innerloop.evaluation.protocol import (
    TUNED_WITH,
    How,
    Initialization,
    Piece,
    Protocol,
    measure,
    pieces,
    tune,
)
from innerloop.evaluation.scoring import cap_fault
from innerloop.files import write_json
from innerloop.learning.inner_loop import InnerLoop
from innerloop.loading.models import LoadedModel
from innerloop.numerics.tensors import TensorSet
from innerloop.results.intervals import of_scores
from innerloop.results.schema import Metric
from innerloop.runs.learned import Learned, at_its_base, check_shared
from innerloop.spaces.space import ParameterSpace

Say = Callable[[str, int, int], None]  # stage, done, total


def score_pieces(place: Path, todo: Sequence[Piece], measured: Callable[[Piece], dict[str, Any]], say: Say) -> None:
    """Writes place/scores/PIECE.json for each."""
    for number, piece in enumerate(todo):
        say("scoring", number, len(todo))
        path = place / "scores" / f"{piece.name}.json"
        if not path.exists():
            write_json(path, measured(piece))
    say("scoring", len(todo), len(todo))


def tuned(
    place: Path, space: ParameterSpace, protocol: Protocol, validation: Sequence[EncodedTask], say: Say
) -> dict[int, InnerLoop]:
    """From place/tuned.json, or chosen and noted there."""
    note = place / "tuned.json"
    if not note.exists():
        stage = "choosing lr and steps"
        chosen = tune(space, protocol, validation, lambda done, total: say(stage, done, total))
        write_json(note, {str(k): {"steps": inner.steps, "lr": inner.optimizer.lr} for k, inner in chosen.items()})
    return {
        int(k): InnerLoop(steps=said["steps"], optimizer=replace(TUNED_WITH, lr=said["lr"]))
        for k, said in json.loads(note.read_text()).items()
    }


def forgotten(
    place: Path,
    what: Initialization,
    base: LoadedModel,
    tasks: Sequence[EncodedTask],
    *,
    protocol: Protocol,
    prompts: int,
    hows: Sequence[How],
    say: Say,
) -> list[dict[str, Any]]:
    """KL from the base after adapting on the most examples of draw 0, and as the initialization stands (how "none")."""
    note = place / "forgetting.json"
    if note.exists():
        return json.loads(note.read_text())
    found: list[dict[str, Any]] = []
    hows = [how for how in hows if how == "none" or max(protocol.k)]
    if prompts and hows:
        say("forgetting", 0, len(hows))
        known = continuations(base.model, base.tokenizer, prompts=shipped_prompts()[:prompts])
        for number, how in enumerate(hows):
            piece = Piece("unseen", 0 if how == "none" else max(protocol.k), 0, how)
            kl: dict[str, float] = {}
            inner = what.inner(piece)

            def look(taken: int, values: TensorSet, chunk: Chunk, *, last: int = inner.steps, kl=kl) -> None:
                if taken == last:
                    names = [task.task.name for task in chunk.tasks]
                    kl.update(zip(names, forgetting(what.space, values, known).tolist(), strict=True))

            # As the initialization stands it is the same for every task.
            asked = tasks[:1] if how == "none" else tasks
            adapt(
                what.space, inner, [draw_support(task, piece.k, seed=protocol.seed) for task in asked], asked, look=look
            )
            say("forgetting", number + 1, len(hows))
            found.append({"how": how, "k": piece.k, "kl": kl if how != "none" else {"shared": next(iter(kl.values()))}})
    write_json(note, found)
    return found


def protocol_of(config: RunConfig, *, k: Sequence[int], draws: int, max_new_tokens: int | None = None) -> Protocol:
    """Raises UserError for a k below 0."""
    if min(k) < 0:
        raise UserError(Fault("less than no example", "--k", min(k), "0 or above"))
    grid = config.method.row.space.grid
    return Protocol(k=tuple(sorted(set(k))), draws=draws, grid=grid, max_new_tokens=max_new_tokens, seed=config.seed)


def to_score(folder: Path, protocol: Protocol, say: Say | None = None) -> Groundwork:
    """The tasks of a finished run that are going to be scored, before its model is read.

    Raises UserError where no task was held out, one has fewer than k examples or longer answers than allowed, or its
    data can't be read any more.
    """
    run, faults, found = finished(folder), Faults(), None
    check_shared(run)
    with faults.collecting():
        found = groundwork(at_its_base(run), say=say)
    if not run.config.tasks.held_out:
        faults.add("this run held no task out", "tasks.held_out", expected="names of tasks to score")
    if found:
        _check_examples(found, max(protocol.k), faults)
        faults += cap_fault([task for task in found.held_out if task.test], protocol.max_new_tokens, "--max-new-tokens")
    faults.raise_if_any()
    assert found is not None
    return found


def _check_examples(found: Groundwork, most: int, faults: Faults) -> None:
    for task in (*found.held_out, *found.validation):
        if len(task.pool) < most:
            right = f"at most {len(task.pool)}, the examples of {task.task.name}"
            faults.add("more examples than a task has", "--k", most, right)
    if not all(task.test for task in found.held_out):
        faults.add("no test example is left", "tasks.test", expected="more examples a task")


def evaluate(learned: Learned, protocol: Protocol, say: Say, *, ground: Groundwork | None = None) -> dict[str, Any]:
    """The scores of a finished run on the tasks that it held out; "tuned" where it has validation tasks.

    ground: what `to_score` found, where that was called before the run was loaded.
    Every piece is kept under the run's eval/ and, at equal arguments, not measured again.
    Raises UserError as `to_score` does.
    """
    ground = ground or to_score(learned.folder, protocol)
    session = prepare(learned.config, model=learned.model, ground=ground)
    place = learned.folder / "eval" / hashlib.sha256(repr(protocol).encode()).hexdigest()[:12]
    choices = tuned(place, learned.space, protocol, session.validation, say) if session.validation else {}
    what = Initialization(learned.space, learned.model, learned.inner, choices)
    todo = pieces(protocol, hows=("own", "tuned") if choices else ("own",))
    score_pieces(place, todo, lambda piece: measure(piece, what, session.held_out, protocol), say)
    found = [json.loads((place / "scores" / f"{piece.name}.json").read_text()) for piece in todo]
    return {"folder": str(place), "rows": [_row(found, *key) for key in dict.fromkeys((p.k, p.how) for p in todo)]}


def _row(found: Sequence[Mapping[str, Any]], k: int, how: str) -> dict[str, Any]:
    """The mean over tasks, draws and examples with its interval; the worst task; test loss minus support loss."""
    parts = [part for part in found if (part["k"], part["how"]) == (k, how)]
    names = list(parts[0]["tasks"])

    def interval(metric: Metric, field: str) -> dict[str, Any]:
        values = {name: np.array([[part["tasks"][name][field] for part in parts]]) for name in names}
        means = {name: float(value.mean()) for name, value in values.items()}
        worst = (min if metric == "accuracy" else max)(means, key=means.__getitem__)
        return {**of_scores(values, metric), "worst": worst, "tasks": means}

    row = {"k": k, "how": how, "steps": parts[0]["steps"], "lr": parts[0]["lr"], "draws": len(parts)}
    row |= {"nats": interval("nats", "nats"), "stop_nats": interval("stop_nats", "stop_nats")}
    row["accuracy"] = interval("accuracy", "correct")
    row["cut"] = sum(part["tasks"][name]["cut"] for part in parts for name in names)
    row["answers"] = sum(len(part["tasks"][name]["ids"]) for part in parts for name in names)
    row["unchecked"] = sum(len(part["tasks"][name]["unchecked"]) for part in parts for name in names)
    support = [part["tasks"][name]["support_nats"] for part in parts for name in names]
    return row | {"gap": None if None in support else row["nats"]["mean"] - sum(support) / len(support)}


def lines(found: Mapping[str, Any]) -> list[str]:
    """A table for people."""
    table = [("k", "adapted", "steps", "lr", "nats", "nats of stopping", "accuracy", "gap", "worst task")]
    for row in found["rows"]:
        nats, right = row["nats"], row["accuracy"]
        table.append(
            (
                str(row["k"]),
                row["how"],
                str(row["steps"]),
                "" if row["lr"] is None else f"{row['lr']:g}",
                _shown(nats, ".2f"),
                _shown(row["stop_nats"], ".2f"),
                _shown(right, ".0%"),
                "" if row["gap"] is None else f"{row['gap']:.2f}",
                nats["worst"],
            )
        )
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table)
    failed = sum(row["unchecked"] for row in found["rows"])
    notes = [f"{failed} answers count as wrong because checking them failed"] if failed else []
    if cut := sum(row["cut"] for row in found["rows"]):
        notes.append(f"{cut} of {sum(row['answers'] for row in found['rows'])} answers were cut off before they ended")
    notes += [
        "nats: per answer token; the mean of an answer, then of a task's answers (training's loss is one mean over all "
        "scored tokens of a task, those that end an answer among them)",
        "[95 % intervals]: over tasks like these, of these trained values; one training seed says nothing of a method",
        "gap: test nats minus support nats",
        f"every score is in {found['folder']}/",
    ]
    return [*padded, *notes]


def _shown(score: Mapping[str, Any], form: str) -> str:
    """ "1.23 [1.10, 1.36]"; of one task alone there is no interval."""
    mean, *ends = (format(score[key], form) for key in ("mean", "low", "high") if key in score)
    return f"{mean} [{', '.join(ends)}]" if ends else mean
