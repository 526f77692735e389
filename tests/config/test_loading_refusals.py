"""load_config: what is refused, where it says so and in which words."""

from pathlib import Path
from typing import Any

import pytest

from config_examples import faults_of, minimal
from innerloop.config.document import to_yaml
from innerloop.config.loading import load_config

ADAMW, SGD = "{name: adamw, lr: 1e-3}", "{name: sgd, lr: 0.1}"

# method, what is set, the key and the words of the one fault, and a neighbour that is right
REFUSED = [
    ("fomaml", "method.lora.r=8", "method.lora", ["fomaml-lora", "method.lora.r"], "method.inner.steps=8"),
    ("joint", "method.lora.r=8", "method.lora", ["joint-lora"], "outer.steps=8"),
    ("joint", "method.inner.steps=8", "method.inner", ["no inner loop", "reptile"], "outer.steps=8"),
    ("joint-lora", "method.inner.steps=8", "method.inner", ["no inner loop"], "method.lora.r=8"),
    ("lora", f"method.inner.optimizer={SGD}", "method.inner", ["no inner loop"], "method.lora.r=8"),
    ("fomaml-lora", "method.keep_task_adapters=true", "keep_task_adapters", ["meta-lora"], "seed=1"),
    ("reptile", "tasks.query=8", "tasks.query", ["no query"], "tasks.support=8"),
    ("reptile-lora", "tasks.query=8", "tasks.query", ["no query"], "tasks.support=8"),
    (
        "fomaml",
        "method.inner.optimizer={name: sgd, lr: 1, betas: [0, 0]}",
        "method.inner.optimizer.betas",
        ["sgd has no betas", "adamw"],
        "method.inner.optimizer={name: adamw, lr: 1, betas: [0, 0]}",
    ),
    (
        "joint",
        "outer.optimizer={name: sgd, lr: 1, weight_decay: 0}",
        "outer.optimizer.weight_decay",
        ["sgd has no weight_decay"],
        "outer.optimizer={name: adamw, lr: 1, weight_decay: 0}",
    ),
    (
        "reptile",
        "method.inner.optimizer={name: sgd, lr: 1, loraplus_lr_ratio: 2}",
        "loraplus_lr_ratio",
        ["reptile-lora"],
        f"method.inner.optimizer={SGD}",
    ),
    (
        "meta-lora",
        "outer.optimizer={name: sgd, lr: 1, loraplus_lr_ratio: 2}",
        "loraplus_lr_ratio",
        ["unknown", "method.inner.optimizer.loraplus_lr_ratio"],
        "method.inner.optimizer={name: sgd, lr: 1, loraplus_lr_ratio: 2}",
    ),
    ("maml", f"method.inner.optimizer={ADAMW}", "inner.optimizer", ["sgd"], f"method.inner.optimizer={SGD}"),
    ("maml-lora", f"method.inner.optimizer={ADAMW}", "inner", ["sgd"], f"method.inner.optimizer={SGD}"),
    ("fomaml", "memory.trunk_cache=true", "memory.trunk_cache", ["LoRA"], "memory.trunk_cache=false"),
    ("meta-lora", "memory.trunk_cache=true", "memory.trunk_cache", ["layers"], "memory.trunk_cache=false"),
    ("fomaml-lora", "memory.lean=true", "memory.lean", ["LoRA"], "memory.lean=false"),
    ("fomaml-lora", "memory.offload=true", "memory.offload", ["LoRA"], "memory.offload=false"),
    ("fomaml", "memory.lean=true", "memory.lean", ["bfloat16"], "model.dtype=bfloat16"),
    ("maml", "memory.tasks_per_forward=2", "tasks_per_forward", ["maml-lora"], "memory.tasks_per_forward=1"),
    ("joint-lora", "outer.joint_steps=2", "joint_steps", ["jointly in every step"], "outer.warmup=2"),
    ("lora", "outer.joint_steps=2", "joint_steps", ["one task", "meta-lora"], "outer.warmup=2"),
    ("lora", "outer.tasks_per_step=2", "tasks_per_step", ["one task"], "outer.tasks_per_step=1"),
    ("fomaml", "method.inner.steps=0", "inner.steps", ["whole number above 0"], "method.inner.steps=[0, 1]"),
    ("fomaml", "method.inner.steps=[1, -1]", "inner.steps", ["-1", "0 or above"], "method.inner.steps=[2]"),
    ("fomaml", "method.inner.steps=[3, 1, 3]", "inner.steps", ["different"], "method.inner.steps=[3, 1]"),
    ("fomaml", "method.inner.steps=[1, 2.5]", "inner.steps", ["2.5", "whole number"], "method.inner.steps=[1, 2]"),
    ("fomaml", "method.inner.steps=[]", "inner.steps", ["whole number"], "method.inner.steps=1"),
    ("fomaml", "method.inner.steps=[0]", "inner.steps", ["no step", "above 0"], "method.inner.steps=[0, 5]"),
    ("reptile", "method.inner.steps=[0, 2]", "inner.steps", ["teach nothing"], "method.inner.steps=[1, 2]"),
    ("reptile", "method.inner.anchor=0.1", "inner.anchor", ["fomaml-lora"], "method.inner.warmup=0.1"),
    ("reptile-lora", "method.inner.multi_step=5", "inner.multi_step", ["maml"], "method.inner.warmup=5"),
    ("joint", "method.inner.anchor=0.1", "method.inner", ["no inner loop"], "outer.warmup=0.1"),
    ("fomaml", "method.inner.anchor=-0.1", "inner.anchor", ["0 or above"], "method.inner.anchor=0"),
    ("fomaml", "method.inner.multi_step=1.5", "inner.multi_step", ["whole number"], "method.inner.multi_step=2"),
    ("fomaml", "method.inner.train=lora-b", "inner.train", ["no LoRA", "fomaml-lora"], "method.inner.train=last-2"),
    ("maml-lora", "method.inner.train=last-0", "inner.train", ["last-N"], "method.inner.train=lora-b"),
    ("reptile-lora", "method.inner.train=lora-b", "inner.train", ["meta-lora"], "method.inner.warmup=1"),
    ("maml", "method.inner.learned_rates=entry", "learned_rates", ["fomaml-lora"], "method.inner.anchor=1"),
    ("reptile", "method.inner.learned_rates=none", "learned_rates", ["meta-lora"], "method.inner.warmup=1"),
    (
        "fomaml",
        "method.inner.learned_rates=step",
        "learned_rates",
        ["tensor-step"],
        "method.inner.learned_rates=tensor",
    ),
    ("fomaml", "outer.rates_lr=0.1", "outer.rates_lr", ["learned_rates"], "method.inner.learned_rates=none"),
    ("fomaml", "method.inner.batch_size=9", "batch_size", ["9 of the 8"], "method.inner.batch_size=8"),
    ("fomaml", "tasks.support=93", "tasks.support", ["larger than the pool", "93"], "tasks.support=92"),
    ("reptile", "tasks.support=101", "tasks.support", ["larger than the pool"], "tasks.support=100"),
    ("fomaml", "tasks.examples_per_task=15", "examples_per_task", ["pool"], "tasks.examples_per_task=16"),
    ("fomaml", "tasks.examples_per_task=null", "examples_per_task", ["no end"], "outer.clip=null"),
    ("fomaml", "tasks.folder=x", "tasks.folder", ["not from both"], "tasks.suite=x"),
    ("fomaml", "tasks={support: 4}", "tasks", ["no tasks", "tasks.folder"], "tasks={folder: x}"),
    (
        "fomaml",
        "tasks.instances=3",
        "tasks.instances",
        ["hidden-rules or house-styles"],
        "tasks={suite: house-styles, instances: 3}",
    ),
    ("fomaml", "tasks.columns={a: b}", "tasks.columns", ["folder"], "tasks={folder: x, columns: {a: b}}"),
    ("fomaml", "tasks.verifier=math", "tasks.verifier", ["folder"], "tasks={folder: x, verifier: math}"),
    ("fomaml", "tasks={folder: x, verifier: text}", "tasks.verifier", ["exact"], "tasks={folder: x, verifier: exact}"),
    ("fomaml", "tasks={folder: x, difficulty: easy}", "difficulty", ["suite"], "tasks.difficulty=easy"),
    (
        "fomaml",
        "tasks={suite: s, held_out: [a, b], validation: [b]}",
        "tasks.held_out",
        ["b", "tasks.validation"],
        "tasks={suite: s, held_out: [a, b], validation: [c], only: [a, c]}",
    ),
    ("fomaml", "tasks.only=[a, a]", "tasks.only", ["different"], "tasks.only=[a, b]"),
    ("fomaml", "method.name=fomml", "method.name", ['"fomaml"'], "method.name=maml"),
    ("fomaml", "method.name=[fomaml]", "method.name", ["fomaml"], "method.name=joint"),
    ("fomaml", "method=fomaml", "method", ["section", "inner.steps"], "method={name: fomaml}"),
    ("fomaml", "outer.stepz=3", "outer.stepz", ["unknown key", '"steps"'], "outer.steps=3"),
    ("fomaml", "inner.steps=3", "inner.steps", ["unknown key", "method.inner"], "method.inner.steps=3"),
    ("fomaml", "outer.lr=3", "outer.lr", ["unknown key", "outer.optimizer.lr"], f"outer.optimizer={SGD}"),
    ("fomaml", "nothing=3", "nothing", ["unknown key", "one of", "output_dir"], "seed=3"),
    ("fomaml", "outer.steps=yes", "outer.steps", ["'yes'", "whole number"], "outer.steps=1"),
    ("fomaml", "outer.steps='8'", "outer.steps", ["'8'", "whole number"], "outer.steps=8"),
    ("fomaml", "outer.steps=true", "outer.steps", ["True", "whole number"], "outer.steps=10"),
    ("fomaml", "outer.steps=1e2", "outer.steps", ["100.0", "whole number"], "outer.steps=100"),
    ("fomaml", "outer.clip=.inf", "outer.clip", ["inf", "number above 0"], "outer.clip=1"),
    ("fomaml", "outer.clip=.nan", "outer.clip", ["nan"], "outer.clip=1e-30"),
    ("fomaml", "outer.clip=0", "outer.clip", ["above 0"], "outer.clip=1E5"),
    ("fomaml", "seed=-1", "seed", ["2**32"], "seed=0"),
    ("fomaml", "seed=4294967296", "seed", ["2**32"], "seed=4294967295"),
    ("fomaml", "seed=null", "seed", ["no value", "leave it out"], "outer.clip=null"),
    ("fomaml", "method.inner=", "method.inner", ["no value", "section"], "method.inner.clip=null"),
    ("lora", "method.lora.lora_dropout=1", "lora_dropout", ["below 1"], "method.lora.lora_dropout=0"),
    ("lora", "method.lora.layers=first-2", "layers", ["last-N"], "method.lora.layers=last-2"),
    ("fomaml", "model.device=gpu", "model.device", ["cuda:N"], "model.device=cuda:0"),
    ("fomaml", "seed", "--set seed", ["section.key=value"], "seed=1"),
    ("fomaml", "seed.x=1", "--set seed.x=1", ["whole number"], "seed=1"),
]


@pytest.mark.parametrize(("method", "wrong", "where", "words", "right"), REFUSED)
def test_what_is_refused(method: str, wrong: str, where: str, words: list[str], right: str) -> None:
    (fault,) = faults_of(minimal(method), wrong)
    assert f"--set {wrong}" in fault
    assert where in fault
    assert [word for word in words if word not in fault] == []
    load_config(minimal(method), [right])


@pytest.mark.parametrize(
    ("option", "value", "key"),
    [
        ("lora_rank", 8, "method.lora.r"),
        ("rank", 8, "method.lora.r"),
        ("alpha", 8, "method.lora.lora_alpha"),
        ("layers", "all", "method.lora.layers"),
        ("lora_r", 8, "method.lora.r"),
        ("lora_alpha", 16, "method.lora.lora_alpha"),
        ("lora_dropout", 0.1, "method.lora.lora_dropout"),
        ("target_modules", ["q_proj"], "method.lora.target_modules"),
        ("use_rslora", True, "method.lora.use_rslora"),
        ("lora", {"r": 8}, "method.lora"),
    ],
)
def test_lora_options_in_the_model_section_name_where_they_went(option: str, value: Any, key: str) -> None:
    model = {"name": "m", option: value}
    for method, right in (("fomaml", "fomaml-lora"), ("joint", "joint-lora"), ("meta-lora", "meta-lora")):
        (fault,) = faults_of(minimal(method, model=model))
        assert f"{key}, with {right} as method.name" in fault
        assert f"model.{option}" in fault
        assert ("trains all parameters" in fault) == (method != right)
    assert "meta-lora" in faults_of(minimal("unknown", model=model))[0]


def test_all_faults_come_together_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "model: {name: m, lora_rank: 8}\n"
        "tasks:\n"
        "  suite: s\n"
        "  support: '8'\n"
        "  suite: t\n"
        "method:\n"
        "  name: fomaml\n"
        "  lora: {r: 8}\n"
        "  inner: {batch_size: 200, optimizer: {name: adamw}}\n"
        "memory: {trunk_cache: true}\n"
    )
    found = faults_of(file, "outer.stepz=1", "bad")
    heads = [fault.splitlines()[0].removeprefix(f"{file}: ") for fault in found]
    expected = {
        "tasks.suite (line 5): this key is given twice, first in line 3",
        "model.lora_rank (line 1)",
        "tasks.support (line 4)",
        "method.lora (line 8)",
        "method.inner.optimizer.lr (line 9): missing",
        "memory.trunk_cache (line 10)",
        "output_dir: missing",
        "--set outer.stepz=1",
        "--set bad",
    }
    assert len(heads) == len(expected)
    assert all(any(head.startswith(start) for head in heads) for start in expected)
    file.write_text(to_yaml(minimal("fomaml")))
    load_config(file)


def test_one_mistake_gives_one_fault() -> None:
    assert len(faults_of(minimal("fomaml"), "tasks.support=x")) == 1  # not batch_size too, whose default it is
    assert len(faults_of(minimal("unknown"), "method.lora.r=3")) == 1
    assert len(faults_of(minimal("fomaml"), "method.lora={r: 0, layers: x}")) == 1
    assert len(faults_of({})) == 4


def test_the_empty_section_of_another_method_is_refused_too() -> None:
    assert "method.lora" in faults_of({**minimal("fomaml"), "method": {"name": "fomaml", "lora": {}}})[0]
    load_config({**minimal("lora"), "method": {"name": "lora", "lora": {}}})


def test_a_config_cant_be_changed_later() -> None:
    config = load_config(minimal("fomaml"))
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 8  # pyright: ignore[reportAttributeAccessIssue]
