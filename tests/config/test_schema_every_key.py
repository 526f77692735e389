"""The law: a changed value of every config key changes a trained tensor, a file of the run or the printed plan.

The echo of the config (run.yaml, and `config` in the manifest) is not compared: every key shows there.

RUNS         the runs that are changed, small ones that between them read every key
CHANGES      for every key another value, the run, and where the change has to show
EXCEPTIONS   keys that show in the echo alone, each with its reason
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
import torch
from torch import Tensor

from config_examples import OTHER
from helpers import close, same
from innerloop.config.loading import KEYS
from innerloop.config.schema import ABSENT, get
from innerloop.runs.header import Header
from innerloop.runs.meta_train import meta_train
from record_files import write
from small_runs import NAMES, World, files_of, manifest_of, new_world, records, settings, small_run, tensors_of

Show = Literal["tensors", "plan", "files"]

STEPS = {"outer.steps": 3, "method.inner.steps": 3, "tasks.support": 4}
INNER, OUTER = "method.inner.optimizer", "outer.optimizer"
ADAMW = {f"{INNER}.name": "adamw", f"{INNER}.lr": 3e-3, f"{OUTER}.name": "adamw", f"{OUTER}.lr": 2e-3}
SGD = {f"{OUTER}.name": "sgd", f"{OUTER}.lr": 0.1}
SUITE = {"tasks.suite": "hidden-rules", "tasks.instances": 1, "tasks.folder": ABSENT}
SHORT = {"tasks.examples_per_task": 8, "tasks.held_out": [], "tasks.max_length": 2000, "outer.steps": 1}

RISING = {f"{OUTER}.lr": 0.3, "outer.clip": None, "outer.warmup": 6, "evaluate.every": 2}  # step 2 is the best

RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "meta-lora": ("meta-lora", {**STEPS, **ADAMW}),
    "fomaml-lora": ("fomaml-lora", STEPS),
    "upper layer": ("fomaml-lora", {**STEPS, **SGD, "method.lora.layers": "last-1"}),  # AdamW would magnify rounding
    "cached": ("fomaml-lora", {**STEPS, "method.lora.layers": "last-1", "memory.trunk_cache": True}),
    "all of bfloat16": ("fomaml", {**STEPS, "model.dtype": "bfloat16"}),
    "suite": ("joint-lora", {**SUITE, **SHORT}),
    "in prompts": ("fomaml-lora", {**STEPS, "method.inner.batch_size": 2}),
    "truncated": ("joint-lora", {"tasks.max_length": 12, "tasks.on_too_long": "truncate"}),
    "rates": ("fomaml-lora", {**STEPS, "method.inner.learned_rates": "tensor"}),
    "clipped": ("joint-lora", {**SGD, "outer.clip": 0.01}),
    "validated": ("fomaml-lora", {**STEPS, **RISING, "outer.steps": 6, "tasks.validation": [NAMES[0]]}),
}


class Change(NamedTuple):
    """value: the other one, or taken from a second world; also: what has to go with it."""

    value: Any
    run: str = "meta-lora"
    shows: Show = "tensors"
    also: Mapping[str, Any] = {}


def of(key: str, **options: Any) -> Change:
    """To the value that the config's own tests use."""
    return Change(OTHER[key], **options)


CHANGES: dict[str, Change] = {
    "model.name": Change(lambda other: str(other.base)),
    "model.hub_id": of("model.hub_id"),
    "model.dtype": of("model.dtype"),
    "model.device": Change("cpu"),
    "model.revision": of("model.revision"),
    "model.attn_implementation": of("model.attn_implementation"),
    "tasks.suite": Change("math-science", run="suite", also={"tasks.instances": ABSENT}),
    "tasks.folder": Change(lambda other: str(other.tasks)),
    "tasks.difficulty": of("tasks.difficulty", run="suite"),
    "tasks.instances": of("tasks.instances", run="suite"),
    "tasks.columns": Change({"completion": "other"}),
    "tasks.prompt": of("tasks.prompt", run="in prompts"),
    "tasks.verifier": Change("math"),
    "tasks.examples_per_task": Change(7),
    "tasks.support": of("tasks.support"),
    "tasks.query": of("tasks.query"),
    "tasks.test": of("tasks.test"),
    "tasks.only": Change([NAMES[0], NAMES[1], NAMES[3]]),
    "tasks.validation": Change([NAMES[0]]),
    "tasks.held_out": Change([NAMES[0]]),
    "tasks.max_length": Change(11, run="truncated"),
    "tasks.on_too_long": of("tasks.on_too_long", run="truncated"),
    "tasks.date": of("tasks.date"),
    "method.name": Change("maml-lora", run="fomaml-lora"),
    "method.inner.steps": of("method.inner.steps"),
    "method.inner.warmup": of("method.inner.warmup"),
    "method.inner.anchor": of("method.inner.anchor"),
    "method.inner.multi_step": of("method.inner.multi_step"),
    "method.inner.train": of("method.inner.train"),
    "method.inner.learned_rates": of("method.inner.learned_rates"),
    "method.inner.batch_size": of("method.inner.batch_size"),
    "method.inner.clip": Change(0.01, run="fomaml-lora"),
    f"{INNER}.name": of(f"{INNER}.name"),
    f"{INNER}.lr": of(f"{INNER}.lr"),
    f"{INNER}.betas": of(f"{INNER}.betas"),
    f"{INNER}.eps": of(f"{INNER}.eps"),
    f"{INNER}.weight_decay": of(f"{INNER}.weight_decay"),
    f"{INNER}.loraplus_lr_ratio": of(f"{INNER}.loraplus_lr_ratio"),
    "method.lora.r": of("method.lora.r"),
    "method.lora.lora_alpha": of("method.lora.lora_alpha"),
    "method.lora.target_modules": of("method.lora.target_modules"),
    "method.lora.lora_dropout": of("method.lora.lora_dropout"),
    "method.lora.use_rslora": of("method.lora.use_rslora"),
    "method.lora.init_lora_weights": of("method.lora.init_lora_weights"),
    "method.lora.layers": Change("last-1"),
    "method.keep_task_adapters": of("method.keep_task_adapters", shows="files"),
    "outer.steps": of("outer.steps"),
    f"{OUTER}.name": of(f"{OUTER}.name"),
    f"{OUTER}.lr": of(f"{OUTER}.lr"),
    f"{OUTER}.betas": of(f"{OUTER}.betas"),
    f"{OUTER}.eps": of(f"{OUTER}.eps"),
    f"{OUTER}.weight_decay": of(f"{OUTER}.weight_decay"),
    "outer.tasks_per_step": Change(3),
    "outer.clip": of("outer.clip", run="clipped"),
    "outer.schedule": of("outer.schedule"),
    "outer.warmup": of("outer.warmup"),
    "outer.rates_lr": of("outer.rates_lr", run="rates"),
    "outer.joint_steps": of("outer.joint_steps"),
    "outer.ema": of("outer.ema"),
    "outer.on_non_finite": of("outer.on_non_finite"),
    "memory.tasks_per_forward": Change(1, shows="plan"),
    "memory.checkpointing": of("memory.checkpointing"),
    "memory.trunk_cache": of("memory.trunk_cache", run="upper layer", shows="plan"),
    "memory.trunk_cache_gb": Change(1e-6, run="cached", shows="plan"),
    "memory.logit_rows": Change(2),
    "memory.lean": of("memory.lean", run="all of bfloat16"),
    "memory.offload": of("memory.offload", run="all of bfloat16"),
    "save.every": of("save.every"),
    "save.keep": of("save.keep"),
    "evaluate.every": Change(3, run="validated", shows="files"),
    "evaluate.k": Change(0, run="validated", shows="files"),
    "evaluate.metric": of("evaluate.metric", run="validated", shows="files"),
    "evaluate.patience": of("evaluate.patience", run="validated", shows="files"),
    "evaluate.export": of("evaluate.export", run="validated"),
    "start_from": Change(lambda other: str(small_run(other, "meta-lora", other.base.parent / "before").exported)),
    "report_to": of("report_to", shows="files"),
    "seed": of("seed"),
    "output_dir": Change("elsewhere"),
}

EXCEPTIONS = {
    "tasks.verifier": "checks generated answers, and training generates none (tests/evaluation/test_scoring.py)",
    "model.revision": "which weights of a hub id are read (tests/loading/test_models.py)",
    "model.device": "`auto` is the CPU where there is no GPU, and a test may count on none: the same run",
    "memory.checkpointing": "law 5: it changes memory and time, and no number",
    "memory.logit_rows": "law 5: it changes memory, and no number (tests/planning/test_forecast.py)",
    "memory.offload": "needs a GPU; tests/spaces/test_all_parameters.py has its numbers, and a plan its bytes",
    "outer.on_non_finite": "every number of these runs is finite (tests/engine/test_trainer.py)",
    "save.every": "checkpoints are gone when a run is done (tests/runs/test_resuming.py)",
    "save.keep": "checkpoints are gone when a run is done (tests/runs/test_checkpoint.py)",
    "output_dir": "the same run in another place",
    "model.hub_id": "a name in the export's config and card (tests/artifacts/test_card.py)",
    "tasks.date": "read by chat templates that write a date (engine/test_sources_dates.py), and these tasks are texts",
}
NEEDS_A_GPU = {"memory.offload"}
LAW_5 = {
    f"memory.{key}" for key in ("tasks_per_forward", "checkpointing", "trunk_cache", "trunk_cache_gb", "logit_rows")
}


class Seen(NamedTuple):
    """What a run shows; `echo` is what it was told."""

    tensors: dict[str, Tensor]
    plan: list[str]
    files: dict[str, Any]
    echo: dict[str, Any]


Look = Callable[[dict[str, Any]], Seen]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Another model, and other answers."""
    world = new_world(tmp_path_factory.mktemp("other"), seed=1)
    for name in NAMES:
        write(world.tasks / f"{name}.jsonl", *({**row, "completion": row["other"]} for row in records(name)))
    return world


@pytest.fixture(scope="module")
def look(world: World, tmp_path_factory: pytest.TempPathFactory) -> Look:
    """Trains a config and looks at the run; each config once."""
    seen: dict[str, Seen] = {}

    def at(tree: dict[str, Any]) -> Seen:
        key = json.dumps(tree)
        if key not in seen:
            seen[key] = look_at(tree, world, tmp_path_factory.mktemp("run"))
        return seen[key]

    return at


def look_at(tree: dict[str, Any], world: World, folder: Path) -> Seen:
    plans: list[Header] = []
    output = folder / tree["output_dir"]
    given = {key: value for key, value in tree["model"].items() if key != "revision"}  # of a folder there is none
    model = world.model if given == {"name": str(world.base)} else None
    meta_train({**tree, "output_dir": str(output)}, model=model, on_header=plans.append)
    said = {name: value for name, value in manifest_of(output).items() if name not in ("host", "timing")}
    echo = said.pop("config") | {"output_dir": tree["output_dir"]}
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    steps = [{name: value for name, value in line.items() if name != "timing"} for line in lines]
    names = sorted(files_of(output))
    files = {"names": names, "manifest": said, "metrics": steps}
    return Seen(tensors_of(output), plans[0].lines(), files, echo)


def tree_of(world: World, run: str, changes: Mapping[str, Any] = {}) -> dict[str, Any]:
    method, own = RUNS[run]
    return settings(world, method, Path("run"), {**own, **changes})


def shows(before: Seen, after: Seen) -> set[Show]:
    found: dict[Show, bool] = {
        "tensors": not same(before.tensors, after.tensors),
        "plan": before.plan != after.plan,
        "files": before.files != after.files,
    }
    return {name for name, different in found.items() if different}


def test_no_key_is_forgotten() -> None:
    assert set(CHANGES) == set(KEYS)
    assert EXCEPTIONS.keys() <= set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_a_changed_value_shows(world: World, other: World, look: Look, key: str) -> None:
    if key in NEEDS_A_GPU and not torch.cuda.is_available():
        pytest.skip(f"no CUDA device is here. {EXCEPTIONS[key]}")
    change = CHANGES[key]
    value = change.value(other) if callable(change.value) else change.value
    before = look(tree_of(world, change.run))
    after = look(tree_of(world, change.run, {**change.also, key: value}))
    assert get(before.echo, key) != get(after.echo, key) == value
    if key in EXCEPTIONS:
        assert shows(before, after) <= ({"tensors", "files"} if key in LAW_5 else set())
    else:
        assert change.shows in shows(before, after)
    if key in LAW_5:  # AdamW divides by gradients: where those are small, float32 noise grows
        assert close(after.tensors, before.tensors, 1e-4)


@pytest.mark.parametrize("run", RUNS)
def test_the_same_config_shows_no_change(world: World, look: Look, tmp_path: Path, run: str) -> None:
    """The control: what is compared above depends on the config alone, bit for bit."""
    tree = tree_of(world, run)
    assert shows(look(tree), look_at(tree, world, tmp_path)) == set()
