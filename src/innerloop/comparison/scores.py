"""Scores of an initialization, saved piece by piece: a piece with a file is not measured again.

score_pieces   every piece that has no file yet
tuned, noted   what validation tasks chose, for each k; the same from the file that says it
forgotten      how far the adapted models are from the base on other text
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from innerloop.data.encoding import EncodedTask
from innerloop.engine.groundwork import Say
from innerloop.errors import Fault, UserError
from innerloop.evaluation.forgetting import continuations, forgetting, shipped_prompts
from innerloop.evaluation.kshot import Chunk, adapt, draw_support
from innerloop.evaluation.protocol import TUNED_WITH, Initialization, Piece, Protocol, tune
from innerloop.files import write_json
from innerloop.learning.inner_loop import InnerLoop
from innerloop.loading.models import LoadedModel
from innerloop.numerics.tensors import TensorSet
from innerloop.results.names import How
from innerloop.spaces.space import ParameterSpace


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
    return noted(note)


def noted(note: Path) -> dict[int, InnerLoop]:
    """What was chosen for each k, from the file that says it. Raises UserError for a file that nothing here wrote."""
    try:
        return {
            int(k): InnerLoop(steps=int(said["steps"]), optimizer=replace(TUNED_WITH, lr=float(said["lr"])))
            for k, said in json.loads(note.read_text()).items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        right = "as innerloop eval wrote it: remove the folder, and score again"
        raise UserError(Fault("not a choice of lr and steps", str(note), expected=right)) from None


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
