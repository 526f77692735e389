"""benchmarks/race.py: every contender takes innerloop's step, one that doesn't is refused, and the table says all."""

import json
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import contenders
import ours
import pytest
import race
import torch

from innerloop.loading.models import LoadedModel
from record_files import write
from small_runs import World

PACKAGES = {"TorchOpt": "torchopt", "learn2learn": "learn2learn"}
REPEATS = 2


@pytest.fixture(scope="module")
def mixed_row(world: World) -> race.Row:
    return race.meta_row(ours.Ours(ours.session(world.model, ours.mixed(world.model))), race.METALEARNERS, REPEATS)


def gap_of(row: race.Row, name: str) -> dict[str, float]:
    return race.same(row.ours.gradient(0), row.others[name]().gradient(0))


@pytest.mark.parametrize("name", race.METALEARNERS)
def test_metalearners_take_the_same_step(mixed_row: race.Row, name: str) -> None:
    if name in PACKAGES and find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{name} is not installed")
    assert max(gap_of(mixed_row, name).values()) <= race.TOLERANCE


def test_the_gradient_is_that_of_the_starting_values(mixed_row: race.Row) -> None:
    before = mixed_row.ours.gradient(0)
    mixed_row.ours.seconds(0)
    assert race.same(before, mixed_row.ours.gradient(0)) == {"loss": 0.0, "gradient": 0.0}


class Longer(contenders.Naive):
    """Another scale: a thousandth more of the loss."""

    def loss(self, rows: Any) -> torch.Tensor:
        return 1.001 * super().loss(rows)


class OneMoreStep(contenders.Naive):
    def __init__(self, *args: Any, rates: Any, **options: Any) -> None:
        super().__init__(*args, rates=rates._replace(steps=rates.steps + 1), **options)


class SecondTaskTwice(contenders.Naive):
    def gradient(self, index: int) -> Any:
        self.rounds = [[tasks[1], *tasks[1:]] for tasks in self.rounds]
        return super().gradient(index)


@pytest.mark.parametrize("kind", [Longer, OneMoreStep, SecondTaskTwice])
def test_one_that_takes_another_step_is_not_timed(mixed_row: race.Row, kind: Callable[..., Any]) -> None:
    rounds = [ours.meta_tasks(mixed_row.ours.batches[index]) for index in range(REPEATS)]
    row = mixed_row._replace(others={"wrong": lambda: mixed_row.ours.contender(kind, rounds, ours.META)})
    results: list[Any] = []
    race.compete(row, repeats=REPEATS, keep=results.append)
    assert results[-1]["wrong"]["error"].startswith("UnequalError: another loss or gradient")
    assert "ratio" not in results[-1]["wrong"]


def test_the_trunk_row(world: World) -> None:
    row = race.trunk_row(world.model, ours.mixed(world.model), "last-1", REPEATS)
    assert row.ours.space.loss.trunk is not None
    for name in (race.NAIVE, race.UNCACHED):
        assert max(gap_of(row, name).values()) <= race.TOLERANCE
    with pytest.raises(KeyError):  # it trains other values: compared in time alone
        gap_of(row, race.ALL_LAYERS)


@pytest.mark.parametrize("name", ["transformers Trainer", race.TRL])
def test_trainers_of_one_adapter_take_the_same_step(world: World, tmp_path: Path, name: str) -> None:
    if name == race.TRL:
        pytest.importorskip("trl")
    row = gsm8k_row(world.model, tmp_path)
    assert max(gap_of(row, name).values()) <= race.TOLERANCE
    racer = row.others[name]()
    assert max(race.same(row.ours.gradient(1), racer.gradient(1)).values()) <= race.TOLERANCE
    with pytest.raises(race.UnequalError):  # another batch
        race.same(row.ours.gradient(0), racer.gradient(1))
    assert racer.seconds(1) > 0


def test_a_finer_softmax_is_that_of_float64() -> None:
    """The control leaves out a column that has a thousandth of every row: the bound sees so small an error."""
    generator = torch.Generator().manual_seed(0)
    logits, targets = 4 * torch.randn(20, 50_000, generator=generator), torch.arange(20)
    logits[:, -1] = logits[:, :-1].logsumexp(-1) + math.log(1e-3)
    exact = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="none")
    finer, short = logits.clone(), logits[:, :-1].clone()
    assert ours._finer(finer, targets).double().allclose(exact, rtol=1e-6)
    assert finer.double().allclose(logits.double().softmax(-1), rtol=1e-6)
    assert not ours._finer(short, targets).double().isclose(exact, rtol=1e-6).any()


def gsm8k_row(model: LoadedModel, folder: Path) -> race.Row:
    rows = [{"question": f"what is {n} + {n % 7}?", "answer": f"it is {n + n % 7}" + "." * (n % 5)} for n in range(60)]
    write(folder / "train.jsonl", *rows)
    return race.lora_row(model, folder, REPEATS)


def test_results_and_their_table(mixed_row: race.Row) -> None:
    kept: list[str] = []

    def gone() -> Any:
        raise ImportError("No module named 'gone'")

    row = mixed_row._replace(others={race.NAIVE: mixed_row.others[race.NAIVE], "gone": gone})
    race.compete(row, repeats=REPEATS, keep=lambda found: kept.append(json.dumps(found)))
    results = [json.loads(text) for text in kept]
    assert [len(found[race.NAIVE].get("seconds", [])) for found in results] == [0, 1, 2]
    table = race.race_table({"rows": {"mixed lengths": {"contenders": results[-1]}}})
    assert f"{results[-1][race.NAIVE]['ratio']:.2f}x" in table[2]
    assert table[2].endswith("| 2x |")
    assert "not raced: ImportError: No module named 'gone'" in table[3]


def test_ratios_are_of_medians() -> None:
    found = race.compared([1.0, 2.0, 4.0], [2.0, 2.0, 12.0])
    assert (found["ratio"], found["least"], found["greatest"]) == (1.0, 1.0, 3.0)


def test_lengths_count_what_contenders_pad(world: World) -> None:
    racer = ours.Ours(ours.session(world.model, ours.equal(world.model)))
    found = ours.lengths([racer.batches[0]], tasks_per_forward=1)
    assert found["histogram"] == {"57-64": ours.TASKS * 4 * ours.EXAMPLES}
    assert found["useful_padded"] == found["useful_ours"] == 1.0
    racer = ours.Ours(ours.session(world.model, ours.mixed(world.model)))
    assert ours.lengths([racer.batches[0]], tasks_per_forward=1)["useful_padded"] < 1.0
