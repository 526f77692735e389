"""A folder of data -> the config of a first run on it, which takes minutes on this machine.

first_config   folder -> FirstConfig
FirstConfig    the text of a run.yaml, and in words what was chosen and why

Sizes come from the smallest task, the length from the longest example, the roles from the tasks' names, and the number
of steps from what `plan` predicts of one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innerloop.config.document import to_yaml
from innerloop.config.loading import load_config
from innerloop.data.examples import read_tasks
from innerloop.data.sampler import fitting_sizes, prompts_of
from innerloop.data.tasks import Task
from innerloop.engine.groundwork import Groundwork, Say, groundwork
from innerloop.errors import Fault, UserError
from innerloop.learning.methods import METHODS
from innerloop.loading.architecture import decoder_layers, positions_of
from innerloop.loading.shapes import model_shape, skeleton
from innerloop.planning.budget import plan
from innerloop.planning.devices import chosen
from innerloop.planning.forecast import duration

MODEL, METHOD = "smollm2-135m-q4_1", "meta-lora"
SECONDS = 170.0  # of training: under three minutes, with what comes before it
FEWEST, MOST = 20, 200  # outer steps
LEAST = 6  # different prompts that a task needs: two to adapt with, two to judge that, two to test
ABOUT = """# Written by innerloop init from a look at the data; `innerloop check` says what it will do.
# Every key that isn't here has its default: docs/config.md has a line for each.
"""
LONGEST = 1024  # tokens; longer examples are left out of a first run


@dataclass(frozen=True)
class FirstConfig:
    text: str
    lines: tuple[str, ...]


def first_config(
    folder: Path,
    *,
    model: str = MODEL,
    method: str = METHOD,
    columns: Mapping[str, str] | None = None,
    say: Say | None = None,
) -> FirstConfig:
    """Look at the data, and choose. Loads no weights and writes nothing.

    Raises UserError for data that can't be read, and where no task has enough examples.
    """
    say = say or (lambda *_: None)
    say("reading the tasks", 0, 0)
    tasks = read_tasks(folder, columns=columns, test=0).tasks
    enough = [task for task in tasks if _prompts(task) >= LEAST]
    if not enough:
        right = f"a task with at least {LEAST} different prompts; a file per task, or a column `task`"
        raise UserError(Fault(f"no task has {LEAST} different prompts", str(folder), len(tasks), right))
    tree = _tree(folder, tasks, enough, model=model, method=method, columns=columns or {})
    ground = _measured(tree, say)
    say("predicting a step", 0, 0)
    device = chosen(None, model_device="auto")
    step = plan(ground.config, device, ground=ground).forecast.seconds
    tree["outer"]["steps"] = steps = FEWEST if step is None else max(FEWEST, min(MOST, int(SECONDS / step)))
    took = "" if step is None else f", predicted {duration(step * steps)} on {device.title}"
    return FirstConfig(_text(tree), (*_lines(tree, tasks, enough, ground), f"steps    {steps}{took}"))


def _tree(
    folder: Path, tasks: Sequence[Task], enough: Sequence[Task], *, model: str, method: str, columns: Mapping[str, str]
) -> dict[str, Any]:
    """Sizes that the smallest task allows, and roles."""
    least, names = min(map(_prompts, enough)), [task.name for task in enough]
    sizes = fitting_sizes(least)
    row = METHODS.get(method)  # of an unknown one the config's own check says so
    held_out = _spread(names, len(names) // 5 or int(len(names) > 1))
    rest = [name for name in names if name not in held_out]
    validation = _spread(rest, len(names) // 8)
    training = len(rest) - len(validation)
    only = {"only": names} if len(enough) < len(tasks) else {}
    return {
        "model": {"name": model},
        "tasks": {
            "folder": str(folder),
            **({"columns": dict(columns)} if columns else {}),
            "support": sizes.support,
            **({"query": sizes.query} if row is None or row.reads_query else {}),
            "test": sizes.test,
            **only,
            "validation": validation,
            "held_out": held_out,
        },
        "method": {"name": method},
        "outer": {"steps": FEWEST, "tasks_per_step": 1 if row and row.one_task else min(2, max(1, training))},
        "output_dir": str(Path("runs") / folder.stem),
    }


def _measured(tree: dict[str, Any], say: Say) -> Groundwork:
    """With the length that the longest example asks for, and LoRA on the top layers where the method trains LoRA."""
    bare = skeleton(model_shape(tree["model"]["name"]))
    most = min(positions_of(bare) or LONGEST, LONGEST)
    found = groundwork(load_config(_with(tree, max_length=most, on_too_long="drop")), say=say)
    tasks = (*found.train, *found.validation, *found.held_out)
    longest = max((len(each.tokens) for task in tasks for each in (*task.pool, *task.test)), default=1)
    tree["tasks"]["max_length"] = min(-(-longest // 32) * 32, most)
    if found.dropped.get("too long"):
        tree["tasks"]["on_too_long"] = "drop"
    layers = len(decoder_layers(bare))
    if found.config.method.lora_settings() is not None and layers > 1:
        tree["method"]["lora"] = {"r": 8, "lora_alpha": 16, "layers": f"last-{-(-layers // 4)}"}
        if found.config.tasks.prompt == "alone":
            tree["memory"] = {"trunk_cache": True}
    return groundwork(load_config(tree), say=say)


def _with(tree: Mapping[str, Any], **tasks: Any) -> dict[str, Any]:
    return {**tree, "tasks": {**tree["tasks"], **tasks}}


def _text(tree: Mapping[str, Any]) -> str:
    return f"{ABOUT}{to_yaml(tree)}"


def _lines(tree: Mapping[str, Any], tasks: Sequence[Task], enough: Sequence[Task], ground: Groundwork) -> list[str]:
    sizes, given = [_prompts(task) for task in enough], tree["tasks"]
    few = len(tasks) - len(enough)
    left = f"; {few} left out, with fewer than {LEAST} different prompts" if few else ""
    named = [f"{role.replace('_', ' ')} {', '.join(given[role])}" for role in ("held_out", "validation") if given[role]]
    each = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else str(sizes[0])
    query = f", query {given['query']}" if "query" in given else ""
    lora = tree["method"].get("lora")
    what = f"{lora['layers'].replace('last-', 'the last ')} layers; those below run once per example" if lora else "all"
    return [
        f"tasks    {len(enough)}, with {each} different prompts each{left}",
        f"roles    {len(ground.train)} for training; {'; '.join(named) or 'none is held out'}",
        f"sizes    support {given['support']}{query}, test {given['test']}: what the smallest task allows",
        f"length   {given['max_length']} tokens at most",
        f"method   {tree['method']['name']}, training {what}",
    ]


def _prompts(task: Task) -> int:
    return len(prompts_of(task.pool))


def _spread(names: Sequence[str], count: int) -> list[str]:
    """So many of them, evenly spaced in their order."""
    return [names[(2 * n + 1) * len(names) // (2 * count)] for n in range(count)]
