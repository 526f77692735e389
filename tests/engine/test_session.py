"""From a config to the batches of each step: roles, sizes, the law that support, query and test share nothing."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from config_examples import minimal
from helpers import frozen_copy, same
from innerloop.config.loading import load_config
from innerloop.engine.forwards import evenly
from innerloop.engine.session import Session, prepare, roles
from innerloop.engine.task_batches import TaskBatches
from innerloop.errors import UserError
from innerloop.learning.methods import METHODS
from innerloop.machine import AUTO_TOKENS_PER_FORWARD, chosen_device
from innerloop.runs.header import header_of
from innerloop.spaces.loss import AnswerLoss
from record_files import write
from small_runs import NAMES, ROWS, TEST, World, new_world, records, settings


def session_of(world: World, method: str, **changes: Any) -> Session:
    return prepare(load_config(settings(world, method, Path("unused"), changes)), model=world.model)


def faults_of(world: World, method: str, **changes: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        session_of(world, method, **changes)
    return [f"{fault.where}: {fault.problem}" for fault in caught.value.faults]


# roles


def test_every_task_gets_its_role(world: World) -> None:
    session = session_of(world, "joint-lora", **{"tasks.validation": ["bob"]})
    assert roles(session) == {"train": ["ada", "cy"], "validation": ["bob"], "held_out": ["dee"]}
    assert all(len(task.test) == TEST and len(task.pool) == ROWS - TEST for task in session.train)


def test_lora_trains_on_each_held_out_task_and_only_narrows(world: World) -> None:
    session = session_of(world, "lora")
    assert [name for name, _ in session.streams()] == ["cy", "dee"]
    for name, batches in session.streams():
        assert batches.names == [name]
    one = session_of(world, "lora", **{"tasks.only": ["dee"]})
    assert [name for name, _ in one.streams()] == ["dee"]
    others = session_of(world, "joint-lora").streams()
    assert [name for name, _ in others] == [""]


def test_a_suite_is_read_and_cut_down() -> None:
    tree = minimal("joint-lora", tasks={"suite": "hidden-rules", "instances": 1, "examples_per_task": 20})
    tree["tasks"] |= {"test": 3, "only": ["affine", "units"], "held_out": ["units/0"]}
    from innerloop.data.roles import assign_roles
    from innerloop.engine.sources import read_run_tasks

    config = load_config(tree)
    tasks, dropped, _ = read_run_tasks(config)
    found = assign_roles(tasks, only=config.tasks.only, held_out=config.tasks.held_out)
    assert [[task.name for task in group] for group in found] == [["affine/0"], [], ["units/0"]]
    assert [(len(task.pool), len(task.test)) for task in found.train] == [(20, 3)]
    assert dropped == {}


def test_a_smaller_pool_is_the_same_whatever_the_order_of_the_rows(world: World, tmp_path: Path) -> None:
    for name in NAMES:
        write(tmp_path / f"{name}.jsonl", *reversed(records(name)))
    limit = {"tasks.examples_per_task": 6}
    one, other = (
        session_of(world, "joint-lora", **limit, **{"tasks.folder": str(folder)}) for folder in (world.tasks, tmp_path)
    )
    assert [task.pool for task in one.train] == [task.pool for task in other.train]
    whole = session_of(world, "joint-lora")
    for task, all_of_it in zip(one.train, whole.train, strict=True):
        assert len(task.pool) == 6
        assert set(task.pool) < set(all_of_it.pool)
        assert task.test == all_of_it.test


# what is refused


def test_all_pools_that_are_too_small_are_named_with_the_key(world: World) -> None:
    sizes = {"tasks.support": 8, "tasks.query": 5, "outer.tasks_per_step": 4}
    assert faults_of(world, "joint-lora", **sizes) == [
        *(f"task {name}: a batch larger than the pool" for name in NAMES[:3]),
        "outer.tasks_per_step: more tasks than there are",
    ]
    fits = {"tasks.support": 8, "tasks.query": 4, "outer.tasks_per_step": 3}
    assert len(session_of(world, "joint-lora", **fits).train) == 3


def test_reptile_needs_no_room_for_a_query(world: World) -> None:
    assert session_of(world, "reptile-lora", **{"tasks.support": 12}).train
    assert len(faults_of(world, "reptile-lora", **{"tasks.support": 13})) == 3
    assert len(faults_of(world, "fomaml-lora", **{"tasks.support": 12, "tasks.query": 1})) == 3


def test_no_task_to_train_on(world: World) -> None:
    assert faults_of(world, "joint-lora", **{"tasks.held_out": list(NAMES)}) == ["tasks: no task is left to train on"]
    assert faults_of(world, "lora", **{"tasks.held_out": []}) == ["tasks.held_out: no task is left to train on"]


def test_names_and_long_examples_are_refused_with_their_keys(world: World) -> None:
    wrong = {"tasks.validation": ["bbo"], "tasks.held_out": ["zork"]}
    assert faults_of(world, "joint-lora", **wrong) == [
        "tasks.validation: no task or family has this name",
        "tasks.held_out: no task or family has this name",
    ]
    assert all("tokens" in fault for fault in faults_of(world, "joint-lora", **{"tasks.max_length": 12}))


# draws


def test_a_cpu_fills_nothing_up(world: World) -> None:
    session = session_of(world, "fomaml-lora", **{"outer.tasks_per_step": 3, "tasks.support": 6})
    ragged = session.streams()[0][1]
    even = TaskBatches(session.config, session.train, packed=True, even=evenly("cuda"))
    support, filled = ragged[0].support[0], even[0].support[0]
    assert support.packing is not None
    assert len(set(support.packing.sizes)) > 1
    assert support.computed_tokens == support.token_count == filled.token_count
    assert filled.packing is None or len(set(filled.packing.sizes)) == 1


@pytest.mark.parametrize("method", ["fomaml-lora", "reptile-lora", "joint-lora", "lora"])
def test_support_query_and_test_share_nothing_and_every_example_is_drawn(world: World, method: str) -> None:
    """Law 9, on the batches that a run reads."""
    session = session_of(world, method, **{"method.inner.batch_size": 2} if method == "fomaml-lora" else {})
    pools = {task.task.name: {example.id for example in task.pool} for task in session.train}
    never = {example.id for task in session.train for example in task.test}
    others = session.held_out if method != "lora" else []
    never |= {example.id for task in others for example in (*task.pool, *task.test)}
    seen: dict[str, set[str]] = {name: set() for name in pools}
    for _, batches in session.streams():
        for step in range(50):
            drawn = batches[step]
            assert len(set(drawn.names)) == len(drawn.names) == session.config.outer.tasks_per_step
            for place, name in enumerate(drawn.names):
                support = {id_ for batch in drawn.support for id_ in batch.example_ids[place]}
                query = set(drawn.query.example_ids[place]) if drawn.query else set()
                assert not support & query
                assert len(support) == (0 if drawn.support == [] else 3)
                seen[name] |= support | query
    assert seen == pools
    assert never
    assert not never & set().union(*seen.values())


def test_what_a_step_reads_depends_on_its_number_and_the_seed_alone(world: World) -> None:
    ((_, one),), ((_, other),) = (session_of(world, "fomaml-lora").streams() for _ in range(2))
    late = other[7]
    for step in range(7):
        assert one[step].names is not None
    assert _read(one[7]) == _read(late)
    assert _read(one[7]) != _read(one[6])
    ((_, seeded),) = session_of(world, "fomaml-lora", seed=8).streams()
    assert _read(seeded[7]) != _read(one[7])


def _read(drawn: Any) -> list[Any]:
    batches = [*drawn.support, *([drawn.query] if drawn.query else [])]
    return [drawn.names, *(batch.example_ids for batch in batches), *(batch.tokens.tolist() for batch in batches)]


def test_the_inner_steps_share_a_batch_or_go_round_the_support(world: World) -> None:
    def supports(**changes: Any) -> Any:
        ((_, batches),) = session_of(world, "fomaml-lora", **changes).streams()
        return batches[0].support

    first, second = supports()
    assert first is second
    first, second = supports(**{"method.inner.batch_size": 2})
    assert (first.tokens.shape[1], second.tokens.shape[1]) == (2, 2)
    assert first.example_ids != second.example_ids


def test_joint_training_reads_support_and_query_as_one(world: World) -> None:
    ((_, joint),) = session_of(world, "joint-lora").streams()
    ((_, fomaml),) = session_of(world, "fomaml-lora").streams()
    assert joint[0].support == []
    query, inner = joint[0].query, fomaml[0]
    assert query is not None
    assert inner.query is not None
    for place in range(2):
        apart = inner.support[0].example_ids[place] + inner.query.example_ids[place]
        assert query.example_ids[place] == apart


def test_dropout_masks_are_seeded_by_step_task_inner_step_and_example_and_only_with_dropout(world: World) -> None:
    ((_, plain),) = session_of(world, "fomaml-lora").streams()
    assert all(batch.mask_seeds is None for batch in plain[0].batches)
    ((_, dropped),) = session_of(world, "fomaml-lora", **{"method.lora.lora_dropout": 0.1}).streams()
    seeds = [batch.mask_seeds for step in range(3) for batch in dropped[step].batches]
    flat = [seed for each in seeds for task in each or () for seed in task]
    assert len(set(flat)) == len(flat) == 3 * 2 * (2 * 3 + 2)  # steps, tasks, two inner steps and the query
    ((_, again),) = session_of(world, "fomaml-lora", **{"method.lora.lora_dropout": 0.1}).streams()
    assert [batch.mask_seeds for batch in again[2].batches] == seeds[6:]


# the model and its space


@pytest.mark.parametrize("method", ["fomaml", "fomaml-lora"])
def test_a_model_that_was_passed_in_stays_as_it_is(world: World, method: str) -> None:
    before = frozen_copy(dict(world.model.model.named_parameters()))
    session = session_of(world, method)
    ((_, batches),) = session.streams()
    space = session.space()
    start = frozen_copy(space.shared)
    session.trainer(space, batches).step(batches[0])
    assert not same(space.shared, start)
    assert same(dict(world.model.model.named_parameters()), before)
    assert (session.model.model is world.model.model) == (METHODS[method].space.reads_lora)


def test_without_one_the_configs_model_is_loaded(tmp_path: Path) -> None:
    world = new_world(tmp_path, seed=3)
    session = prepare(load_config(settings(world, "fomaml-lora", Path("x"), {"model.dtype": "bfloat16"})))
    assert session.model.model.dtype == torch.bfloat16
    assert session.model.fingerprint == world.model.fingerprint
    assert session.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_the_cut_is_the_lowest_trained_layer_where_the_cache_is_on(world: World) -> None:
    cached = {"memory.trunk_cache": True, "method.lora.layers": "last-1"}
    session = session_of(world, "fomaml-lora", **cached)
    assert session.cut == 1
    loss = session.space().loss
    assert isinstance(loss, AnswerLoss)
    assert loss.trunk is not None
    ((_, batches),) = session.streams()
    session.trainer(session.space(), batches).step(batches[0])
    width, kept = world.model.model.config.hidden_size, session.store.below(world.model.model, 1, most=0)
    pools = {task.task.name: task.pool for task in session.train}  # each goes through the layers together
    drawn = [(key, task) for batch in batches[0].batches for task, keys in enumerate(batch.keys) for key in keys]
    places = [session.companies.of([key])[key].place(key) for key, _ in drawn]
    assert all(kept.get(place) is not None for place in places)
    assert session.store.kept == 4 * width * sum(
        len(example.tokens) for name in batches[0].names for example in pools[name]
    )
    assert session.store.below(world.model.model, 2, most=0).get(places[0]) is None
    for other in ({"method.lora.layers": "last-1"}, {}):
        assert session_of(world, "fomaml-lora", **other).cut == 0
    assert session_of(world, "fomaml").cut == 0


def test_tasks_per_forward(world: World, tmp_path: Path) -> None:
    def asked(session: Session) -> int:
        return session.tasks_per_forward(session.streams()[0][1])

    three = {"outer.tasks_per_step": 3}
    assert asked(session_of(world, "fomaml-lora", **three)) == 3
    assert asked(session_of(world, "fomaml-lora", **three, **{"memory.tasks_per_forward": 2})) == 2
    assert asked(session_of(world, "fomaml", **three)) == 1
    for name in NAMES:
        long = [{**record, "prompt": record["prompt"] + "x" * 70} for record in records(name)]
        write(tmp_path / f"{name}.jsonl", *long)
    session = session_of(world, "fomaml-lora", **three, **{"tasks.folder": str(tmp_path)})
    one_task = max(batch.token_count // batch.tasks for batch in session.streams()[0][1][0].batches)
    assert asked(session) == AUTO_TOKENS_PER_FORWARD["cpu"] // one_task == 2
    assert session.config.memory.tasks_per_forward == "auto"
    settled = session.settled()
    assert (settled.config.memory.tasks_per_forward, settled.streams()[0][1].names) == (
        2,
        session.streams()[0][1].names,
    )


def test_what_is_left_out_is_counted(world: World, tmp_path: Path) -> None:
    for name in NAMES:
        picture = {**records(name)[0], "image": "x.png"}
        write(tmp_path / f"{name}.jsonl", *records(name), records(name)[0], picture)
    (tmp_path / "notes.txt").write_text("")
    session = session_of(world, "joint-lora", **{"tasks.folder": str(tmp_path)})
    assert session.dropped == {"repeated": 4, "with pictures": 4, "files of no known kind": 1}
    cut = {"tasks.max_length": 12, "tasks.on_too_long": "truncate"}
    truncated = session_of(world, "joint-lora", **cut).dropped
    assert list(truncated) == ["truncated"]
    assert session_of(world, "joint-lora", **(cut | {"tasks.on_too_long": "drop"})).dropped == {
        "too long": truncated["truncated"]
    }
    assert session_of(world, "joint-lora").dropped == {}
    assert json.dumps(session.dropped)


def test_what_looks_wrong_in_the_data_is_said_before_training(world: World, tmp_path: Path) -> None:
    for name in NAMES:  # dee, held out, has ada's records, and no verifier of one number can tell yes from no
        rows = [f"{'yes' if row % 2 else 'no'}, {row % 3}" for row in range(ROWS)]
        asked = "ada" if name == "dee" else name
        write(tmp_path / f"{name}.jsonl", *({"question": f"{asked} {row}", "answer": a} for row, a in enumerate(rows)))
    session = session_of(world, "joint-lora", **{"tasks.folder": str(tmp_path), "tasks.verifier": "number"})
    said = "\n".join(header_of(session).lines())
    assert f"overlap  {TEST} of {TEST} test and {ROWS - TEST} of {ROWS - TEST} pool examples of task dee" in said
    assert "warning  wrong answers are taken for right: " in said
    facts = json.loads(json.dumps(header_of(session).facts()))
    assert facts["overlaps"][0]["others"] == ["ada"]
    assert len(facts["warnings"]) == len(session.warnings) == 1
    clean = header_of(session_of(world, "joint-lora"))
    assert (clean.overlaps, clean.warnings) == ((), ())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_offloading_needs_a_second_memory(world: World) -> None:
    with pytest.raises(UserError, match="nothing to offload from"):
        session_of(world, "fomaml", **{"memory.offload": True})


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(UserError, match="no CUDA device"):
        chosen_device("cuda:1")
    assert chosen_device("auto") == "cpu"


def test_an_example_that_longrope_would_not_read_alone_is_refused_by_file_and_line(world: World) -> None:
    config = load_config(settings(world, "fomaml-lora", Path("unused")))
    model = copy.deepcopy(world.model.model)
    model.config.rope_parameters = {"rope_type": "longrope", "original_max_position_embeddings": 9}
    with pytest.raises(UserError) as caught:
        prepare(config, model=replace(world.model, model=model))
    said = [str(fault) for fault in caught.value.faults]
    assert len(said) == len(NAMES)
    assert all("at most 9 tokens" in each and ".jsonl" in each for each in said)
    assert all(any(f"task {name}" in each for each in said) for name in NAMES)
    model.config.rope_parameters["original_max_position_embeddings"] = 900
    prepare(config, model=replace(world.model, model=model))
