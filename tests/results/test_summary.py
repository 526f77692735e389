"""What was planted in a comparison's folder is what results.json says of it; damage is refused by name."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comparison_folders import K, Planted, edit, write_comparison
from innerloop.results.statistics import bounds
from innerloop.results.summary import summarize

ARMS = {
    "base": Planted(),
    "in-context": Planted(-0.3),
    "joint-lora": Planted(),
    "fomaml-lora": Planted(),
    "meta-lora": Planted(0.4),
    "reptile-lora": Planted(-0.4),
}
SMALL = {"joint-lora": Planted(), "meta-lora": Planted(0.4)}
PRIMARY = {"arm": "meta-lora", "against": "fomaml-lora", "budget": "tokens", "metric": "nats", "k": K}

Entry = Mapping[str, Any]


def summarized(folder: Path) -> dict[str, Any]:
    return summarize(folder).contents()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    write_comparison(folder, ARMS, seen=True, primary=PRIMARY | {"adaptation": "own"}, stopping=True)
    return folder


@pytest.fixture(scope="module")
def found(planted: Path) -> dict[str, Any]:
    return summarized(planted)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    write_comparison(tmp_path, SMALL, seeds=(1, 2), tasks=3, examples=4)
    return tmp_path


def entries(results: Mapping[str, Any], of: str, **fields: Any) -> list[Entry]:
    return [entry for entry in results[of] if all(entry[name] == value for name, value in fields.items())]


def entry(results: Mapping[str, Any], of: str, **fields: Any) -> Entry:
    (only,) = entries(results, of, **fields)
    return only


def pieces(folder: Path, arm: str, **fields: Any) -> Iterator[Entry]:
    for path in sorted(folder.glob(f"cells/{arm}-*/scores/*.json")):
        piece = json.loads(path.read_text())
        if piece["arm"] == arm and all(piece[name] == value for name, value in fields.items()):
            yield piece


def by_example(folder: Path, arm: str, field: str, **fields: Any) -> dict[tuple[Any, ...], float]:
    """(seed, draw, task, id) -> value."""
    found: dict[tuple[Any, ...], float] = {}
    for piece in pieces(folder, arm, **fields):
        for task, scores in piece["tasks"].items():
            for name, value in zip(scores["ids"], scores[field], strict=True):
                found[piece["seed"], piece["draw"], task, name] = value
    return found


def task_means(values: Mapping[tuple[Any, ...], float]) -> dict[str, float]:
    tasks = sorted({task for _, _, task, _ in values})
    return {task: float(np.mean([value for key, value in values.items() if key[2] == task])) for task in tasks}


def cell_files(folder: Path, arm: str, seed: int = 1) -> Path:
    return folder / "cells" / f"{arm}-tokens-{seed}"


class TestVerdicts:
    def test_the_planted_winner_and_loser_are_found(self, found: dict[str, Any]) -> None:
        for how in ("own", "tuned"):
            for metric in ("nats", "accuracy"):
                at = {"how": how, "k": K, "metric": metric, "table": "unseen", "budget": "tokens"}
                assert entry(found, "differences", arm="meta-lora", **at)["verdict"] == "better"
                assert entry(found, "differences", arm="reptile-lora", **at)["verdict"] == "worse"
        nats = entry(found, "differences", arm="meta-lora", how="tuned", k=K, metric="nats")
        assert nats["mean"] == pytest.approx(-0.4, abs=0.1)
        assert nats["low"] < nats["mean"] < nats["high"] < 0

    def test_where_nothing_was_planted_nothing_is_detected(self, found: dict[str, Any]) -> None:
        for null in entries(found, "differences", arm="fomaml-lora", k=K):
            assert null["verdict"] == "no detectable difference from joint-lora"
            assert null["low"] <= 0 <= null["high"]
            assert null["p"] >= 0.05

    def test_an_arm_with_the_references_scores_differs_by_exactly_0(self, tmp_path: Path) -> None:
        write_comparison(tmp_path, {"joint-lora": Planted(), "fomaml-lora": Planted()}, tasks=3)
        for path in tmp_path.glob("cells/fomaml-lora-*/scores/*.json"):
            twin = Path(str(path).replace("fomaml-lora", "joint-lora").replace("own", "tuned"))
            scores = json.loads(twin.read_text())["tasks"]
            edit(path, lambda piece, scores=scores: piece.update(tasks=dict(reversed(scores.items()))))
        results = summarized(tmp_path)
        assert {each["how"] for each in results["differences"]} == {"none", "own", "tuned"}
        for each in results["differences"]:
            assert [each[name] for name in ("mean", "low", "high", "p")] == [0, 0, 0, 1]
            assert each["verdict"] == "no detectable difference from joint-lora"

    def test_the_interval_is_that_of_the_table_of_tasks_and_seeds(self, planted: Path, found: dict[str, Any]) -> None:
        at = {"how": "own", "k": K, "table": "unseen"}
        ours, theirs = (by_example(planted, arm, "nats", **at) for arm in ("meta-lora", "fomaml-lora"))
        tasks, seeds = sorted({key[2] for key in ours}), sorted({key[0] for key in ours})
        table = [
            [np.mean([ours[key] - theirs[key] for key in ours if (key[2], key[0]) == (task, seed)]) for seed in seeds]
            for task in tasks
        ]
        expected = [float(each) for each in bounds(np.array(table))]
        contrast = entry(found, "contrasts", how="own", k=K, metric="nats")
        assert [contrast[name] for name in ("mean", "low", "high", "p")] == pytest.approx(expected)

    def test_the_primary_contrast_is_the_one_that_was_named(self, tmp_path: Path, found: dict[str, Any]) -> None:
        named, contrast = found["primary"], entry(found, "contrasts", how="own", k=K, metric="nats")
        assert named.items() >= {**PRIMARY, "adaptation": "own", "verdict": "better"}.items()
        assert [named[name] for name in ("mean", "low", "high", "p")] == [
            contrast[name] for name in ("mean", "low", "high", "p")
        ]
        against = {**PRIMARY, "arm": "in-context", "against": "joint-lora", "adaptation": "tuned"}
        write_comparison(tmp_path, ARMS, tasks=3, examples=4, primary=against)
        assert summarized(tmp_path)["primary"]["mean"] > 0, "an arm without adaptation counts in every one"
        shutil.rmtree(tmp_path / "cells")
        assert summarized(tmp_path)["primary"] == against, "named, whatever has become of it"
        write_comparison(tmp_path, SMALL, tasks=3, examples=4)
        assert summarized(tmp_path)["primary"] is None

    @pytest.mark.parametrize("seeds", [(1,), (1, 2)])
    def test_fewer_than_three_seeds_have_no_verdict_and_no_p(self, tmp_path: Path, seeds: tuple[int, ...]) -> None:
        write_comparison(
            tmp_path, SMALL, seeds=seeds, primary={**PRIMARY, "against": "joint-lora", "adaptation": "own"}
        )
        results = summarized(tmp_path)
        judged = [*results["differences"], *results["contrasts"]]
        assert {each["verdict"] for each in judged} == {"these trained values"}
        assert not [each for each in (*judged, results["primary"]) if "p" in each]
        assert all(each["low"] < each["mean"] < each["high"] for each in judged), "over tasks, of these values"

    def test_contrasts_are_of_arms_that_were_both_scored(self, found: dict[str, Any]) -> None:
        assert {each["name"] for each in found["contrasts"]} == {"algorithm"}
        algorithm = entry(found, "contrasts", how="own", k=K, metric="nats")
        assert (algorithm["of"], algorithm["verdict"]) == ("meta-lora - fomaml-lora", "better")
        assert algorithm["mean"] == pytest.approx(-0.4, abs=0.1)
        assert len(entries(found, "contrasts", metric="nats")) == 3, "k = 0, own, tuned: of unseen tasks alone"


class TestNumbers:
    @pytest.mark.parametrize(("metric", "field"), [("nats", "nats"), ("accuracy", "correct")])
    def test_scores_are_means_of_task_means(
        self, planted: Path, found: dict[str, Any], metric: str, field: str
    ) -> None:
        means = task_means(by_example(planted, "meta-lora", field, table="unseen", how="own", k=K))
        score = entry(found, "scores", arm="meta-lora", table="unseen", how="own", k=K, metric=metric)
        assert score["tasks"] == pytest.approx(means)
        assert score["mean"] == pytest.approx(np.mean(list(means.values())))
        assert score["low"] < score["mean"] < score["high"]
        worst = (max if metric == "nats" else min)(means, key=lambda task: means[task])
        assert score["worst"] == [worst, pytest.approx(means[worst])]

    def test_nats_of_stopping_are_a_score_of_their_own_where_every_piece_has_them(
        self, tmp_path: Path, found: dict[str, Any]
    ) -> None:
        for stop in entries(found, "scores", metric="stop_nats"):
            nats = entry(found, "scores", **{**{n: stop[n] for n in ("table", "arm", "how", "k")}, "metric": "nats"})
            assert stop["tasks"] == pytest.approx({task: value / 10 for task, value in nats["tasks"].items()})
        counts = [len(entries(found, "scores", metric=metric)) for metric in ("nats", "accuracy", "stop_nats")]
        assert len(set(counts)) == 1
        write_comparison(tmp_path, SMALL, tasks=3, examples=4, stopping=True)
        piece = cell_files(tmp_path, "meta-lora") / "scores" / f"unseen-k{K}-draw0-own.json"
        edit(piece, lambda content: content["tasks"]["task 0"].pop("stop_nats"))
        lacking = entries(summarized(tmp_path), "scores", metric="stop_nats")
        assert {(each["arm"], each["how"]) for each in lacking} == {
            ("joint-lora", "none"),
            ("joint-lora", "tuned"),
            ("meta-lora", "none"),
            ("meta-lora", "tuned"),
        }

    def test_cut_answers_are_counted_where_every_piece_counts_them(self, tmp_path: Path) -> None:
        write_comparison(tmp_path, SMALL, tasks=3, examples=4)
        for path in tmp_path.glob(f"cells/meta-lora-*/scores/unseen-k{K}-*.json"):
            edit(path, lambda piece: [task.update(cut=1) for task in piece["tasks"].values()])
        some = next(tmp_path.glob(f"cells/meta-lora-tokens-1/scores/unseen-k{K}-*tuned.json"))
        edit(some, lambda piece: piece["tasks"]["task 0"].pop("cut"))
        found = entries(summarized(tmp_path), "scores", arm="meta-lora", metric="accuracy")
        assert {each["how"]: each.get("cut") for each in found} == {
            "none": None,
            "own": [3 * 2 * 3, 3 * 2 * 3 * 4],
            "tuned": None,
        }

    def test_differences_are_of_the_same_example_seed_and_draw(self, planted: Path, found: dict[str, Any]) -> None:
        ours = by_example(planted, "meta-lora", "nats", table="unseen", how="own", k=K)
        theirs = by_example(planted, "joint-lora", "nats", table="unseen", how="tuned", k=K)
        pairs = task_means({key: ours[key] - theirs[key] for key in ours})
        difference = entry(found, "differences", arm="meta-lora", how="own", k=K, metric="nats")
        assert difference["reference_how"] == "tuned", "joint-lora has no inner loop of its own here"
        assert difference["tasks"] == pytest.approx(pairs)
        alone = entry(found, "scores", arm="meta-lora", table="unseen", how="own", k=K, metric="nats")
        assert difference["high"] - difference["low"] < (alone["high"] - alone["low"]) / 2, "what examples share is out"

    def test_arms_that_nothing_trains_count_in_every_budget(self, tmp_path: Path) -> None:
        arms = {"base": Planted(), "in-context": Planted(), **SMALL}
        write_comparison(tmp_path, arms, budgets=("tokens", "seconds"), tasks=3, examples=4)
        results = summarized(tmp_path)
        base = by_example(tmp_path, "base", "nats", k=0)
        joint = by_example(tmp_path, "joint-lora", "nats", budget="seconds", k=0)
        pairs = task_means({key: base[key] - value for key, value in joint.items()})
        difference = entry(results, "differences", arm="base", budget="seconds", metric="nats")
        assert difference["tasks"] == pytest.approx(pairs)
        assert difference["seeds"] == [1, 2, 3]
        assert len(entries(results, "differences", arm="in-context", metric="nats")) == 2
        assert len(entries(results, "rows", arm="base")) == 1

    def test_budgets_are_never_mixed(self, tmp_path: Path) -> None:
        write_comparison(tmp_path, SMALL, budgets=("tokens", "seconds"), tasks=3, examples=4)
        for path in tmp_path.glob("cells/meta-lora-seconds-*/result.json"):
            edit(path, lambda result: result["forgetting"][0].update(kl={"task 0": 9.0}))
        results = summarized(tmp_path)
        lost = {each["budget"]: each["kl"] for each in entries(results, "forgetting", arm="meta-lora")}
        assert lost == pytest.approx({"tokens": 0.2, "seconds": 9.0})
        for budget in lost:
            ours = task_means(by_example(tmp_path, "meta-lora", "nats", budget=budget, k=0))
            score = entry(results, "scores", arm="meta-lora", budget=budget, k=0, metric="nats")
            assert score["tasks"] == pytest.approx(ours)
        assert {each["budget"] for each in results["scores"]} == {"tokens", "seconds"}

    def test_tables_are_never_mixed(self, planted: Path, found: dict[str, Any]) -> None:
        seen = task_means(by_example(planted, "meta-lora", "nats", table="seen"))
        assert entry(found, "scores", arm="meta-lora", table="seen", metric="nats")["tasks"] == pytest.approx(seen)
        assert {each["k"] for each in entries(found, "scores", table="seen")} == {0}

    def test_full_parameter_arms_are_compared_with_joint_too(self, tmp_path: Path) -> None:
        write_comparison(tmp_path, {**SMALL, "joint": Planted(), "fomaml": Planted(0.3)}, tasks=3, examples=4)
        results = summarized(tmp_path)
        pairs = {(each["arm"], each["reference"]) for each in results["differences"]}
        assert pairs == {(arm, "joint-lora") for arm in ("meta-lora", "joint", "fomaml")} | {("fomaml", "joint")}
        for each in entries(results, "differences", reference="joint"):
            assert each["verdict"] in ("better", "worse", "no detectable difference from joint")

    def test_adaptation_targets_forgetting_and_training(self, planted: Path, found: dict[str, Any]) -> None:
        how = {"arm": "meta-lora", "how": "own"}
        adapted = entry(found, "adaptation", **how)
        score = entry(found, "scores", **how, table="unseen", k=K, metric="nats")["mean"]
        assert (adapted["steps"], adapted["lr"], adapted["support_nats"]) == (3, 0.01, 0.25)
        assert adapted["test_nats"] == pytest.approx(score)
        assert adapted["gap"] == pytest.approx(score - 0.25)
        assert adapted["curve"] == [[step, pytest.approx(score + more)] for step, more in ((0, 1), (1, 0.5), (3, 0))]
        assert score < 1.5 < score + 0.5
        reached = entry(found, "targets", **how, metric="nats")
        assert (reached["target"], reached["k"], reached["steps"]) == (1.5, K, 3)
        assert entry(found, "scores", **how, table="unseen", k=K, metric="accuracy")["mean"] > 0.5
        accurate = entry(found, "targets", **how, metric="accuracy")
        assert (accurate["target"], accurate["k"], accurate["steps"]) == (0.5, K, None)
        never = entry(found, "targets", arm="base", metric="nats")
        assert (never["how"], never["k"], never["steps"]) == ("none", None, None)
        lost = entry(found, "forgetting", arm="meta-lora")
        width = 4.302653 * 0.1 / 3**0.5  # t of 2 degrees of freedom: seeds alone differ, and no KL is below 0
        assert (lost["kl"], lost["low"], lost["high"]) == pytest.approx((0.2, 0, 0.2 + width))
        assert entry(found, "training", arm="meta-lora", seed=2)["support_first"] == [None, 2.0]

    def test_rows_are_means_over_seeds(self, found: dict[str, Any]) -> None:
        assert [row["arm"] for row in found["rows"]] == list(ARMS)
        row = entry(found, "rows", arm="meta-lora")
        assert (row["steps"], row["seconds"], row["peak_bytes"], row["seeds"]) == (20, 5.0, {"rss": 200}, [1, 2, 3])
        assert (row["status"], row["reason"], row["parameters"]) == ("done", "", 1000)
        assert "tokens" not in row, "no seed has it"

    def test_it_is_json_and_the_same_again(self, planted: Path, found: dict[str, Any]) -> None:
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert summarized(planted) == found
        assert found["status"] == "done"
        assert found["notes"][0] == "planted"
        assert found["notes"][1].startswith("95 % intervals on unseen tasks cover other tasks and training seeds")


class TestUnfinished:
    def test_a_failed_cell_is_shown_with_its_reason_and_has_no_scores(self, small: Path) -> None:
        for seed in (1, 2):
            result = cell_files(small, "meta-lora", seed) / "result.json"
            edit(result, lambda found: found.update(status="failed", reason="out of memory", seconds=None))
        results = summarized(small)
        row = entry(results, "rows", arm="meta-lora")
        assert (row["status"], row["seeds"]) == ("failed", [])
        assert row["reason"] == "seed 1: out of memory; seed 2: out of memory"
        assert (row["command"], row["parameters"]) == ("innerloop train run.yaml", 1000)
        assert "seconds" not in row
        assert results["status"] == "done"
        assert {each["arm"] for each in results["scores"]} == {"joint-lora"}
        assert results["differences"] == []

    @pytest.mark.parametrize("lacking", ["meta-lora", "joint-lora"])
    def test_seeds_that_one_arm_lacks_are_left_out_of_the_difference(self, small: Path, lacking: str) -> None:
        ours, theirs = (by_example(small, arm, "nats", k=K, how="tuned", seed=1) for arm in ("meta-lora", "joint-lora"))
        (cell_files(small, lacking, 2) / "result.json").unlink()
        (cell_files(small, lacking, 2) / "scores" / "unseen-k0-draw0-none.json").write_text('{"tab')
        results = summarized(small)
        row = entry(results, "rows", arm=lacking)
        assert (results["status"], row["status"], row["reason"]) == ("partial", "missing", "seed 2: no result yet")
        difference = entry(results, "differences", how="tuned", k=K, metric="nats")
        assert difference["seeds"] == [1]
        assert difference["tasks"] == pytest.approx(task_means({key: ours[key] - theirs[key] for key in ours}))
        assert "don't cover other training seeds" in results["notes"][-1]

    def test_a_seed_without_all_its_draws_takes_no_part(self, small: Path) -> None:
        (cell_files(small, "meta-lora", 2) / "scores" / f"unseen-k{K}-draw1-own.json").unlink()
        results = summarized(small)
        assert results["status"] == "partial"
        assert entry(results, "scores", arm="meta-lora", how="own", k=K, metric="nats")["seeds"] == [1]
        assert entry(results, "scores", arm="meta-lora", how="tuned", k=K, metric="nats")["seeds"] == [1, 2]

    def test_a_cell_that_is_done_but_has_no_scores_is_unfinished(self, small: Path) -> None:
        shutil.rmtree(cell_files(small, "meta-lora") / "scores")
        assert summarized(small)["status"] == "partial"

    def test_cells_for_cost_are_rows_and_nothing_else(self, small: Path) -> None:
        cost = {"budget": "cost", "cost_only": True}
        for index in (2, 3):
            edit(small / "matrix.json", lambda matrix, index=index: matrix["cells"][index].update(cost))
        for seed in (1, 2):
            edit(cell_files(small, "meta-lora", seed) / "result.json", lambda found: found.update(cost))
        results = summarized(small)
        assert entry(results, "rows", arm="meta-lora")["cost_only"]
        assert {each["arm"] for each in results["scores"]} == {"joint-lora"}
        assert {each["arm"] for each in results["training"]} == {"joint-lora"}
        shutil.rmtree(cell_files(small, "meta-lora"))
        assert summarized(small)["status"] == "done", "cost figures are no scores"

    def test_nothing_done_is_no_error(self, small: Path) -> None:
        shutil.rmtree(small / "cells")
        results = summarized(small)
        assert [row["status"] for row in results["rows"]] == ["missing", "missing"]
        assert results["scores"] == results["differences"] == results["targets"] == []


def test_answers_are_of_the_first_draw_and_seed_at_each_arms_largest_k(small: Path, found: dict[str, Any]) -> None:
    assert found["questions"] == [], "an older version's pieces have none"

    def write(piece: dict[str, Any]) -> None:
        for task, scores in piece["tasks"].items():
            written = "{arm} {seed} {draw} {k} {how}".format(**piece)
            asked = {"id": scores["ids"][0], "prompt": f"{task}?", "right": "yes", "written": written}
            scores["samples"] = [asked | {"id": "one", "correct": 1.0}]

    for path in small.glob("cells/*/scores/*.json"):
        edit(path, write)
    answered = summarized(small)["questions"]
    assert [each["task"] for each in answered] == ["task 0", "task 1", "task 2"]
    first = answered[0]
    assert (first["id"], first["prompt"], first["right"]) == ("one", "task 0?", "yes")
    told = {each["text"] for each in first["answers"]}
    hows = {path.stem.split("-")[-1] for path in small.glob(f"cells/meta-lora*1/scores/*k{K}*")}
    assert told == {f"joint-lora 1 0 {K} tuned", *(f"meta-lora 1 0 {K} {how}" for how in hows)}
    assert {(each["arm"], each["budget"], each["k"]) for each in first["answers"]} == {
        ("joint-lora", "tokens", K),
        ("meta-lora", "tokens", K),
    }
