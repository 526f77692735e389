"""Compiled decoder layers for a run that asks for them, tried before its first step.

compile_layers   a session whose spaces run compiled layers from here on, or one that says why they don't
"""

import time

from innerloop.engine.session import Session
from innerloop.numerics.tensors import per_task
from innerloop.spaces.compiled import CompiledLayers
from innerloop.spaces.lora import find_targets


def compile_layers(session: Session, *, backend: str = "inductor") -> None:
    """With model.compile, takes the gradients of the first step's batches once: what they need is compiled then.

    Whatever that raises, the run goes on without: a fault that isn't the compiler's comes up again in the first step.
    A step that brings a size of 1, or another mask, compiles for that when it comes.
    """
    settings, started = session.config.method.lora_settings(), time.perf_counter()
    if not session.config.model.compile or settings is None:
        return
    targets = find_targets(session.model.model, settings)
    try:
        session.layers = CompiledLayers(targets, scale=settings.scale, backend=backend)
        _rehearse(session)
    except Exception as error:
        session.layers, session.compiled = None, f"no: {_in_a_line(error)}"
        return
    session.compiled = f"yes, {len(session.layers.recordings)} kinds of layer in {time.perf_counter() - started:.0f} s"
    if session.row.rule.second_order:
        session.compiled += "; Hessian-vector products run uncompiled"


def _rehearse(session: Session) -> None:
    """Every batch of the first step, at the shared values."""
    space, batches = session.space(), session.streams()[0][1]
    for chunk in batches[0].split(session.tasks_per_forward(batches)):
        for batch in {id(batch): batch for batch in chunk.to(space.device).batches}.values():
            space.loss_and_gradient(per_task(space.shared, batch.tasks), batch)


def _in_a_line(error: Exception) -> str:
    """torch wraps what went wrong in pages of advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}"[:200] if lines else type(error).__name__
