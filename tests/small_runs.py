"""Whole runs that take a fraction of a second: a tiny model, four tasks of records, and configs of runs on them.

World       what runs share: the folders of the model and of the tasks, and the loaded model
new_world   writes and loads one
settings    dotted key -> value of a small run of a method; other keys on top
small_run   trains it
tensors_of  every tensor of a run's folder
files_of    every file of a folder, with its bytes
logits_of   what a run's model says with some values
tokens_of   a prompt as its model reads it
config_file the YAML file of a run, beside its output_dir
Runs, Cli   what the fixtures `runs` and `cli` are
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from innerloop.config.document import to_yaml
from innerloop.config.schema import ABSENT, nested
from innerloop.data.encoding import encode_prompt
from innerloop.learning.methods import METHODS
from innerloop.loading.models import LoadedModel, load
from innerloop.runs.learned import Learned
from innerloop.runs.meta_train import meta_train
from record_files import write
from tiny import save_tiny

NAMES = ("ada", "bob", "cy", "dee")
ROWS, TEST = 14, 2
LAYERS = 2

Changes = Mapping[str, Any]
NOTHING: Changes = {}


Runs = Callable[[str], Learned]


class Said(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Said]


class World(NamedTuple):
    base: Path
    tasks: Path
    model: LoadedModel


def records(task: str) -> list[dict[str, Any]]:
    """Prompts of different lengths; `other` is a second column of answers."""
    return [
        {
            "prompt": f"{task} " + "+" * (row % 4) + f"{row}:",
            "completion": f" {task[row % len(task)]}",
            "other": f" {row}",
        }
        for row in range(ROWS)
    ]


SUPPORT = records("eve")[:3]


def new_world(folder: Path, *, seed: int = 0) -> World:
    base, tasks = save_tiny(folder / "base", layers=LAYERS, seed=seed), folder / "tasks"
    tasks.mkdir()
    for name in NAMES:
        write(tasks / f"{name}.jsonl", *records(name))
    return World(base, tasks, load(str(base)))


def settings(world: World, method: str, output: Path, changes: Changes = NOTHING) -> dict[str, Any]:
    """`changes`: dotted keys; ABSENT leaves one out."""
    row = METHODS[method]
    values = {
        "model.name": str(world.base),
        "tasks.folder": str(world.tasks),
        "tasks.test": TEST,
        "tasks.support": 3,
        "tasks.query": 2 if row.reads_query else ABSENT,
        "tasks.held_out": ["cy", "dee"] if row.one_task else ["dee"],
        "method.name": method,
        "method.inner.steps": 2 if "inner" in row.rule.options() else ABSENT,
        "method.lora.r": 8 if row.space.reads_lora else ABSENT,
        "outer.steps": 2,
        "outer.tasks_per_step": 1 if row.one_task else 2,
        "output_dir": str(output),
        **changes,
    }
    return nested({key: value for key, value in values.items() if value is not ABSENT})


def small_run(world: World, method: str, output: Path, changes: Changes = NOTHING) -> Learned:
    return meta_train(settings(world, method, output, changes), model=world.model)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {
        f"{path.relative_to(folder)}: {name}": value
        for path in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def tokens_of(learned: Learned, prompt: str = "abc 12:") -> Tensor:
    return torch.tensor([encode_prompt(prompt, learned.model.tokenizer)])


def logits_of(learned: Learned, values: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    with learned.space.installed(values) as model:
        return model(input_ids=tokens, use_cache=False).logits


def config_file(world: World, folder: Path, method: str = "fomaml-lora", changes: Changes = NOTHING) -> Path:
    """run.yaml beside the run's output_dir, `run`."""
    path = folder / "run.yaml"
    path.write_text(to_yaml(settings(world, method, folder / "run", changes)))
    return path
