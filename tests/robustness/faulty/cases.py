"""The runs that faults are tried on: a tiny model, a few tasks, every method, as different as runs can be.

CASES   name -> method and keys that differ from tests/small_runs.py
write   the model, the tasks and each case's run.yaml; called in the process that has torch
"""

from pathlib import Path
from typing import Any

_DROPOUT = {"method.lora.lora_dropout": 0.1}
_CHUNKS = {"memory.tasks_per_forward": 1}  # several a step: a strike may come between two
_STEPS = {"outer.steps": 5, "save.every": 2, "save.keep": 2}
_EACH_STEP = {"outer.steps": 3, "save.every": 1, "save.keep": 1}  # a checkpoint is removed, too
_ADAM = {"method.inner.optimizer.name": "adamw", "method.inner.optimizer.lr": 0.01}
_LEAN = {"model.dtype": "bfloat16", "memory.lean": True}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "fomaml": ("fomaml", {**_STEPS, **_LEAN}),
    "maml": ("maml", _STEPS),
    "reptile": ("reptile", {**_STEPS, **_ADAM}),
    "joint": ("joint", _STEPS),
    "fomaml-lora": ("fomaml-lora", {**_STEPS, **_DROPOUT, **_CHUNKS}),
    "maml-lora": ("maml-lora", {**_STEPS, **_DROPOUT}),
    "meta-lora": ("meta-lora", {**_STEPS, **_DROPOUT, "method.keep_task_adapters": True}),
    "reptile-lora": ("reptile-lora", {**_STEPS, **_DROPOUT, **_ADAM}),
    "joint-lora": ("joint-lora", {**_STEPS, **_DROPOUT, **_CHUNKS}),
    "lora": ("lora", {**_STEPS, **_DROPOUT}),
    "each step": ("fomaml-lora", {**_EACH_STEP, **_DROPOUT}),
    "each step, all": ("fomaml", _EACH_STEP),
    "each step, adapters": ("lora", {**_EACH_STEP, "outer.steps": 2}),
    "each step, kept": ("meta-lora", {**_EACH_STEP, "outer.steps": 2, "method.keep_task_adapters": True}),
}
METHODS = tuple(name for name, (method, _) in CASES.items() if name == method)


def write(folder: str, names: list[str]) -> None:
    """`names`: of the cases. The model and tasks are written where they are not there yet."""
    import small_runs
    from innerloop.config.document import to_yaml
    from tiny import save_tiny

    world = Path(folder) / "world"
    if not world.exists():
        save_tiny(world / "base", layers=small_runs.LAYERS)
        (world / "tasks").mkdir()
        for task in small_runs.NAMES:
            small_runs.write(world / "tasks" / f"{task}.jsonl", *small_runs.records(task))
    places: Any = small_runs.World(world / "base", world / "tasks", model=None)  # pyright: ignore[reportArgumentType]
    for name in names:
        home = Path(folder) / name.replace(", ", "-").replace(" ", "-")
        home.mkdir(exist_ok=True)
        method, changes = CASES[name]
        settings = small_runs.settings(places, method, home / "out" / "run", changes)
        (home / "run.yaml").write_text(to_yaml(settings), encoding="utf-8")
