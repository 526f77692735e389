"""load_config: what is filled in, what is refused and in which words."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.errors import UserError
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import METHODS, Fomaml, Maml, MetaLora
from innerloop.numerics.optimizers import AdamW, Sgd
from innerloop.runs.config import DEFAULT_INNER, DEFAULT_OUTER, KEYS, load_config
from innerloop.runs.rules import unread
from innerloop.runs.schema import ABSENT, EVERYTHING, get, nested
from innerloop.runs.yaml import to_yaml
from innerloop.spaces.lora import LoraSettings

ADAMW, SGD = "{name: adamw, lr: 1e-3}", "{name: sgd, lr: 0.1}"

# A value of every key that is not its default, all in one run.
OTHER: dict[str, Any] = {
    "model.name": "another",
    "model.dtype": "bfloat16",
    "model.device": "cuda:1",
    "tasks.suite": "hidden-rules",
    "tasks.folder": "more",
    "tasks.difficulty": "hard",
    "tasks.instances": 3,
    "tasks.columns": {"question": "q"},
    "tasks.examples_per_task": 50,
    "tasks.support": 6,
    "tasks.query": 4,
    "tasks.test": 5,
    "tasks.only": ["a", "b", "c"],
    "tasks.validation": ["a"],
    "tasks.held_out": ["b", "1e5"],
    "tasks.max_length": 99,
    "tasks.on_too_long": "drop",
    "method.name": "fomaml-lora",
    "method.inner.steps": 4,
    "method.inner.batch_size": 2,
    "method.inner.clip": 0.5,
    "method.inner.optimizer.name": "sgd",
    "method.inner.optimizer.lr": 0.7,
    "method.inner.optimizer.betas": [0.1, 0.2],
    "method.inner.optimizer.weight_decay": 0.3,
    "method.inner.optimizer.loraplus_lr_ratio": 16,
    "method.lora.r": 2,
    "method.lora.lora_alpha": 3.5,
    "method.lora.target_modules": ["q_proj", "v_proj"],
    "method.lora.lora_dropout": 0.1,
    "method.lora.use_rslora": True,
    "method.lora.layers": "last-2",
    "method.keep_task_adapters": True,
    "outer.steps": 9,
    "outer.optimizer.name": "sgd",
    "outer.optimizer.lr": 1e-5,
    "outer.optimizer.betas": [0.3, 0.4],
    "outer.optimizer.weight_decay": 0.01,
    "outer.tasks_per_step": 2,
    "outer.clip": None,
    "memory.tasks_per_forward": 2,
    "memory.checkpointing": True,
    "memory.trunk_cache": True,
    "seed": 8,
    "output_dir": "runs/another",
}


def base(**changes: Any) -> dict[str, Any]:
    """A meta-lora run with both optimizers given."""
    adamw = {"name": "adamw", "lr": 1e-3}
    method = {"name": "meta-lora", "inner": {"optimizer": adamw}, "lora": {"layers": "last-3"}}
    return {**minimal("meta-lora"), "method": method, "outer": {"optimizer": adamw}, **changes}


def minimal(method: str, **changes: Any) -> dict[str, Any]:
    return {
        "model": {"name": "m"},
        "tasks": {"suite": "math-science"},
        "method": {"name": method},
        "output_dir": "runs/x",
        **changes,
    }


def faults_of(source: Any, *sets: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_config(source, sets)
    return [str(fault) for fault in caught.value.faults]


def test_values_reach_the_objects_they_are_for() -> None:
    config = load_config(
        base(seed=3),
        [
            "method.inner={steps: 2, clip: 3, optimizer: {name: sgd, lr: 1e-4}}",
            "method.lora={r: 4, layers: [1, 2], target_modules: [q_proj]}",
            "method.keep_task_adapters=true",
            "outer.optimizer={name: adamw, lr: 1E-3, betas: [0, 0.5], weight_decay: 1}",
            "outer.clip=2",
        ],
    )
    inner = InnerLoop(steps=2, optimizer=Sgd(lr=1e-4, clip=3.0))
    assert config.method.build() == MetaLora(inner=inner, keep_task_adapters=True)
    assert config.method.lora_settings() == LoraSettings(r=4, layers=(1, 2), target_modules=("q_proj",))
    assert config.outer.build_optimizer() == AdamW(lr=1e-3, clip=2.0, betas=(0.0, 0.5), weight_decay=1.0)
    assert config.output_dir == Path("runs/x")
    assert config.seed == 3


@pytest.mark.parametrize("method", METHODS)
def test_every_method_loads_builds_and_comes_back_from_its_resolved_config(
    method: str, tmp_path: Path
) -> None:
    config = load_config(minimal(method))
    assert isinstance(config.method.build(), METHODS[method].rule)
    assert (config.method.lora_settings() is not None) == (METHODS[method].trains == "lora")
    resolved = config.resolved()
    assert json.loads(json.dumps(resolved)) == resolved
    assert load_config(resolved) == config
    file = tmp_path / "resolved.yaml"
    file.write_text(to_yaml(resolved))
    assert load_config(file) == config
    assert load_config(file, ["seed=8"]) != config


COMMON = {"seed", "output_dir", "method.name", "outer.steps", "outer.tasks_per_step", "outer.clip"}
COMMON |= {f"model.{key}" for key in ("name", "dtype", "device")}
COMMON |= {f"memory.{key}" for key in ("tasks_per_forward", "checkpointing", "trunk_cache")}
COMMON |= {f"outer.optimizer.{key}" for key in ("name", "lr", "betas", "weight_decay")}
COMMON |= {f"tasks.{key}" for key in ("suite", "difficulty", "examples_per_task", "support", "test", "only")}
COMMON |= {f"tasks.{key}" for key in ("validation", "held_out", "max_length", "on_too_long")}
QUERY = {"tasks.query"}
SGD_STEPS = {
    f"method.inner.{key}" for key in ("steps", "batch_size", "clip", "optimizer.name", "optimizer.lr")
}
ADAMW_STEPS = SGD_STEPS | {"method.inner.optimizer.betas", "method.inner.optimizer.weight_decay"}
LORA = {key for key in KEYS if key.startswith("method.lora.")}
RATIO = {"method.inner.optimizer.loraplus_lr_ratio"}
READ = {
    "fomaml": COMMON | QUERY | SGD_STEPS,
    "maml": COMMON | QUERY | SGD_STEPS,
    "reptile": COMMON | SGD_STEPS,
    "joint": COMMON | QUERY,
    "fomaml-lora": COMMON | QUERY | SGD_STEPS | LORA | RATIO,
    "maml-lora": COMMON | QUERY | SGD_STEPS | LORA | RATIO,
    "meta-lora": COMMON | QUERY | ADAMW_STEPS | LORA | RATIO | {"method.keep_task_adapters"},
    "reptile-lora": COMMON | ADAMW_STEPS | LORA | RATIO,
    "joint-lora": COMMON | QUERY | LORA,
    "lora": COMMON | QUERY | LORA,
}


@pytest.mark.parametrize("method", METHODS)
def test_resolved_has_every_key_that_is_read_and_no_other(method: str) -> None:
    assert set(_leaves(load_config(minimal(method)).resolved())) == READ[method]


def test_the_source_and_the_optimizer_decide_what_is_read() -> None:
    folder = load_config(minimal("joint", tasks={"folder": "x"})).resolved()
    assert set(_leaves(folder)) == READ["joint"] - {"tasks.suite", "tasks.difficulty"} | {
        "tasks.folder",
        "tasks.columns",
    }
    hidden = load_config(minimal("joint", tasks={"suite": "hidden-rules"})).resolved()
    assert set(_leaves(hidden)) == READ["joint"] | {"tasks.instances"}
    sgd = load_config(minimal("joint"), [f"outer.optimizer={SGD}"]).resolved()
    assert set(_leaves(sgd)) == READ["joint"] - {"outer.optimizer.betas", "outer.optimizer.weight_decay"}


@pytest.mark.parametrize("key", KEYS)
def test_a_changed_value_of_every_key_shows_in_the_resolved_config(key: str) -> None:
    before = base()
    if key in ("tasks.folder", "tasks.columns"):
        before["tasks"] = {"folder": "data"}
    if key == "tasks.instances":
        before["tasks"] = {"suite": "hidden-rules"}
    after = load_config(before, [f"{key}={json.dumps(OTHER[key])}"])
    assert get(after.resolved(), key) == OTHER[key]
    assert get(load_config(before).resolved(), key) != OTHER[key]


def test_the_defaults_of_the_inner_loop_are_the_methods_own() -> None:
    for method, row in METHODS.items():
        inner = load_config(minimal(method)).resolved()["method"].get("inner")
        if "inner" not in row.rule.options():
            assert inner is None
            continue
        expected = DEFAULT_INNER.get(method, DEFAULT_INNER[row.trains])
        assert (inner["steps"], inner["clip"]) == (expected["steps"], expected["clip"])
        assert inner["optimizer"]["lr"] == expected["optimizer"]["lr"]
    fomaml, meta = load_config(minimal("fomaml")), load_config(minimal("meta-lora"))
    assert fomaml.method.build() == Fomaml(inner=InnerLoop(steps=3, optimizer=Sgd(lr=1e-2)))
    assert meta.method.build() == MetaLora(
        inner=InnerLoop(steps=5, optimizer=AdamW(lr=3e-3, betas=(0.9, 0.99)))
    )
    lora = load_config(minimal("fomaml-lora")).method.build()
    assert lora == Fomaml(inner=InnerLoop(steps=3, optimizer=Sgd(lr=0.3, clip=1.0)))


def test_keys_default_one_by_one_and_an_optimizer_as_a_whole() -> None:
    config = load_config(minimal("meta-lora"), ["method.inner.steps=2"])
    assert config.method.inner is not None
    assert (config.method.inner.steps, config.method.inner.optimizer.betas) == (2, (0.9, 0.99))
    config = load_config(minimal("meta-lora"), [f"method.inner.optimizer={ADAMW}"])
    assert config.method.build() == MetaLora(inner=InnerLoop(steps=5, optimizer=AdamW(lr=1e-3)))
    (fault,) = faults_of(minimal("meta-lora"), "outer.optimizer.lr=1")
    assert "outer.optimizer.name: missing" in fault
    assert "sgd or adamw" in fault


def test_other_defaults_that_depend_on_the_run() -> None:
    steps = {method: load_config(minimal(method)).outer.tasks_per_step for method in METHODS}
    assert steps.pop("lora") == 1
    assert set(steps.values()) == {4}
    rates = {method: load_config(minimal(method)).outer.optimizer.lr for method in METHODS}
    assert all(rates[method] == DEFAULT_OUTER[row.trains]["lr"] for method, row in METHODS.items())
    folder = load_config(minimal("fomaml", tasks={"folder": "data"})).tasks
    assert (folder.examples_per_task, folder.columns, folder.difficulty) == (None, {}, None)
    assert load_config(minimal("fomaml")).tasks.examples_per_task == 100
    assert (
        load_config(minimal("fomaml"), ["tasks.support=3"]).resolved()["method"]["inner"]["batch_size"] == 3
    )
    assert load_config(minimal("lora"), ["outer.clip=null"]).outer.build_optimizer().clip is None
    unclipped = load_config(minimal("fomaml-lora"), ["method.inner.clip=null"]).method.build()
    assert unclipped == Fomaml(inner=InnerLoop(steps=3, optimizer=Sgd(lr=0.3)))


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
    ("maml", "memory.tasks_per_forward=2", "tasks_per_forward", ["maml-lora"], "memory.tasks_per_forward=1"),
    ("lora", "outer.tasks_per_step=2", "tasks_per_step", ["one task"], "outer.tasks_per_step=1"),
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
        ["hidden-rules"],
        "tasks={suite: hidden-rules, instances: 3}",
    ),
    ("fomaml", "tasks.columns={a: b}", "tasks.columns", ["folder"], "tasks={folder: x, columns: {a: b}}"),
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
    assert "fomaml-lora" in faults_of(minimal("unknown", model=model))[0]


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
        "  inner: {batch_size: 200, optimizer: {lr: 1e-3}}\n"
        "memory: {trunk_cache: true}\n"
    )
    found = faults_of(file, "outer.stepz=1", "bad")
    heads = [fault.splitlines()[0].removeprefix(f"{file}: ") for fault in found]
    expected = {
        "tasks.suite (line 5): this key is given twice, first in line 3",
        "model.lora_rank (line 1)",
        "tasks.support (line 4)",
        "method.lora (line 8)",
        "method.inner.optimizer.name (line 9): missing",
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
    assert (
        len(faults_of(minimal("fomaml"), "tasks.support=x")) == 1
    )  # not batch_size too, whose default it is
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


@st.composite
def valid(draw: st.DrawFn) -> dict[str, Any]:
    """A config that loads: a method, a source, and other values of some of the keys that such a run reads."""
    method = draw(st.sampled_from(list(METHODS)))
    source = draw(st.sampled_from(["tasks.suite", "tasks.folder"]))
    values = {"model.name": "m", "output_dir": "x", "method.name": method, source: OTHER[source]}
    optional = [key for key in KEYS if key not in (*values, "tasks.suite", "tasks.folder")]
    chosen = draw(st.sets(st.sampled_from(optional)))
    for key in chosen:
        values[key] = OTHER[key]
    for section in ("method.inner.optimizer", "outer.optimizer"):
        kind = "sgd" if METHODS[method].rule is Maml else draw(st.sampled_from(["sgd", "adamw"]))
        if any(key.startswith(section) for key in chosen):
            values |= {f"{section}.name": kind, f"{section}.lr": draw(st.floats(1e-8, 1e3))}
    if METHODS[method].trains == "all":
        values.pop("memory.trunk_cache", None)
        values.pop("memory.tasks_per_forward", None)
    if "memory.trunk_cache" in values:
        values["method.lora.layers"] = "last-2"
    if METHODS[method].one_task:
        values.pop("outer.tasks_per_step", None)
    gone = [objection.keys[0] for objection in unread(values)]
    return nested(
        {
            key: value
            for key, value in values.items()
            if not any(f"{key}.".startswith(f"{other}.") for other in gone)
        }
    )


@settings(max_examples=60, deadline=None)
@given(tree=valid())
def test_resolved_loads_as_an_equal_config(
    tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = load_config(tree)
    config.method.build()
    resolved = config.resolved()
    assert load_config(resolved) == config
    assert load_config(resolved).resolved() == resolved
    file = tmp_path_factory.mktemp("config") / "run.yaml"
    file.write_text(to_yaml(resolved))
    assert load_config(file) == config
    assert all(get(resolved, key) == value for key, value in _leaves(tree).items())


WORDS = st.sampled_from(sorted({part for key in EVERYTHING for part in key.split(".")})) | st.text(max_size=5)
ANY = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3)
    | st.sampled_from([*METHODS, "sgd", "adamw", "auto", 10**400, "\ud800", Path("x")])
)
NESTED = st.recursive(
    ANY,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(WORDS, inside, max_size=5),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(
    source=st.dictionaries(WORDS | st.integers(), NESTED, max_size=6),
    sets=st.lists(st.text(max_size=8), max_size=2),
)
def test_any_mapping_is_loaded_or_refused(source: dict[Any, Any], sets: list[str]) -> None:
    faults_of(source, *sets)


@settings(max_examples=200, deadline=None)
@given(key=st.sampled_from(EVERYTHING), value=NESTED, method=st.sampled_from(list(METHODS)))
def test_any_value_of_any_key_is_loaded_or_refused(key: str, value: Any, method: str) -> None:
    tree = minimal(method)
    *sections, last = key.split(".")
    section: Any = tree
    for name in sections:
        section = section.setdefault(name, {})
    section[last] = value
    try:
        config = load_config(tree)
    except UserError as error:
        assert str(error)  # noqa: PT017
    else:
        assert load_config(config.resolved()) == config


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=10), key=st.sampled_from(KEYS))
def test_any_setting_is_loaded_or_refused(text: str, key: str) -> None:
    try:
        config = load_config(minimal("meta-lora"), [f"{key}={text}"])
    except UserError as error:
        assert str(error)  # noqa: PT017
    else:
        assert load_config(config.resolved()) == config


def _leaves(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key in KEYS if (value := get(tree, key)) is not ABSENT}
