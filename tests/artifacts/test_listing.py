"""Runs on disk, listed and compared: whole ones, ones that were stopped, and folders that only look like one."""

import json
from pathlib import Path

import pytest

from innerloop.artifacts.listing import HEADER, differences, how_it_ended, list_runs, table
from innerloop.errors import UserError
from small_runs import Runs, World, small_run


@pytest.fixture(scope="module")
def two(runs: Runs, world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and one with another seed and rank, in one folder."""
    place = tmp_path_factory.mktemp("runs")
    for name, changes in (("one", {}), ("deep/er/other", {"seed": 11, "method.lora.r": 2})):
        small_run(world, "fomaml-lora", place / name, changes)
    return place / "one", place / "deep/er/other"


def test_every_run_below_a_folder_is_listed_the_newest_first(two: tuple[Path, Path]) -> None:
    one, other = two
    found = list_runs(one.parent)
    assert [run.folder for run in found] == [other, one]
    assert {(run.status, run.method, run.step, run.steps) for run in found} == {("done", "fomaml-lora", 2, 2)}
    losses = [json.loads(line)["loss"] for line in (one / "metrics.jsonl").read_text().splitlines()]
    assert found[1].loss == pytest.approx(sum(losses) / 2), "of the last 20 steps, here 2"
    assert found[1].validation is None
    assert found[1].bytes == sum(path.stat().st_size for path in one.rglob("*") if path.is_file())
    assert table(found).split()[: len(HEADER)] == list(HEADER)


def test_a_run_itself_is_a_list_of_one(two: tuple[Path, Path]) -> None:
    assert [run.folder for run in list_runs(two[0])] == [two[0]]


def test_what_differs_is_what_was_set_differently(two: tuple[Path, Path]) -> None:
    found = differences(*two)
    assert found["seed"] == (7, 11)
    assert found["method.lora.r"] == (8, 2)
    assert found.keys() == {"seed", "method.lora.r"}, "and not the folder, which is never the same"
    assert differences(two[0], two[0]) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"status": "done"}', '{"status": 1, "config": 2, "model": 3}'])
def test_a_folder_that_only_looks_like_a_run_is_listed_as_unreadable(tmp_path: Path, text: str) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "manifest.json").write_text(text)
    (run,) = list_runs(tmp_path)
    assert run.status == "unreadable"


def test_half_a_last_line_is_passed_over(two: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("manifest.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes((two[0] / name).read_bytes())
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    (run,) = list_runs(tmp_path)
    assert run.step == 2


def test_links_are_not_followed(two: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(two[0].parent)
    assert list_runs(tmp_path) == []


def test_what_is_no_folder_and_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        list_runs(tmp_path / "gone")
    with pytest.raises(UserError, match=r"no manifest\.json here"):
        differences(tmp_path, tmp_path)


def test_an_evaluation_is_no_step(two: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("manifest.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes((two[0] / name).read_bytes())
    (before,) = list_runs(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "eval": {"nats": 1.5, "tasks": {}}}\n')
    (after,) = list_runs(tmp_path)
    assert (after.step, after.loss) == (before.step, before.loss)
    assert (before.validation, after.validation) == (None, 1.5)
    assert "1.500" in after.row()


def test_a_loss_is_the_mean_of_the_last_steps_of_one_adapter(two: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes((two[0] / "manifest.json").read_bytes())
    lines = [{"step": n, "adapter": name, "loss": n + 100 * (name == "b")} for name in "ab" for n in range(1, 31)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [run.loss for run in list_runs(tmp_path)] == [pytest.approx(100 + sum(range(11, 31)) / 20)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:33]))
    assert [run.loss for run in list_runs(tmp_path)] == [pytest.approx(102)]


def test_how_a_run_ended_is_said_of_any_manifest() -> None:
    found = {"best": {"nats": 1.25, "exact": 0.5}, "best_step": 4, "evaluations": 3, "exported_step": 4}
    said = how_it_ended({"validation": found, "stopped_after": 6, "stopped_by": "evaluate.patience"})
    assert said == [
        "evaluated 3 times, best after step 4: 1.250 nats, 50% exact; exported: the values after step 4",
        "ended    after 6 steps, by evaluate.patience",
    ]
    assert how_it_ended({}) == []
    for odd in ({"validation": 3}, {"validation": {"best": None}}, {"stopped_after": "x"}, {"stopped_after": 3}):
        assert how_it_ended(odd) == []
