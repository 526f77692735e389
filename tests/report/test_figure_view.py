"""Which part of the results a figure is of, and how it is named for that."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from innerloop.report.figure_style import looks, new_figure, style
from innerloop.report.figure_view import View
from innerloop.report.words import MAIN_METRICS
from report.conftest import ARMS, given
from results_example import example, read

NATS, RIGHT = MAIN_METRICS


def view(**changes: Any) -> View:
    return replace(View(read(example()), looks(ARMS), "tokens", "own"), **changes)


@pytest.mark.parametrize(
    ("changes", "subject", "k"),
    [
        ({}, "T2 unseen tasks · own inner loop · equal tokens", 8),
        ({"how": "tuned"}, "T2 unseen tasks · tuned lr and steps · equal tokens", 8),
        ({"budget": "seconds"}, "T2 unseen tasks · own inner loop · equal seconds", 8),
        ({"table": "seen", "how": "none"}, "T1 seen tasks · shared adapter, k = 0 · equal tokens", 0),
        ({"table": None, "how": "none"}, "training · equal tokens", 8),
    ],
)
def test_the_heading_says_which_part_it_is(changes: dict[str, Any], subject: str, k: int) -> None:
    assert (view(**changes).subject, view(**changes).k) == (subject, k)


@pytest.mark.parametrize("metric", MAIN_METRICS)
def test_a_score_is_that_of_the_largest_k(metric: Any) -> None:
    of = {"table": "unseen", "budget": "tokens", "arm": "meta-lora", "metric": metric.name}
    for how in ("own", "tuned"):
        (entry,) = given("scores", **of, how=how, k=8)
        found = view(how=how).of(metric).score("meta-lora")
        assert found is not None
        assert (found.k, found.mean) == (8, entry["mean"])
        assert view(how=how).of(metric).tell(found).startswith(f"{entry['mean'] * metric.scale:.{metric.digits}f} (")
    (base,) = given("scores", table="unseen", arm="base", metric=metric.name)
    found = view().of(metric).score("base")
    assert found is not None
    assert (found.k, found.mean) == (0, base["mean"])
    (seen,) = given("scores", **of | {"table": "seen"})
    found = view(table="seen").of(metric).score("meta-lora")
    assert found is not None
    assert found.mean == seen["mean"]
    assert view(budget="seconds").of(metric).score("lora") is None


def test_a_difference_is_from_the_reference_in_the_same_part() -> None:
    for how in ("own", "tuned"):
        wanted = {"table": "unseen", "budget": "tokens", "arm": "meta-lora", "how": how, "k": 8, "metric": "nats"}
        (entry,) = given("differences", **wanted, reference="joint-lora")
        found = view(how=how).difference("meta-lora")
        assert found is not None
        assert found.mean == entry["mean"]
    assert view().difference("joint-lora") is None


def test_a_score_without_an_interval_is_its_mean() -> None:
    found = view().score("meta-lora")
    assert found is not None
    assert "(" in view().tell(found)
    assert view().tell(found.model_copy(update={"low": None})) == NATS.plain(found.mean)


def test_what_is_left_out_has_its_reason() -> None:
    seconds = view(budget="seconds")
    assert seconds.left_out(seconds.arms()) == ""
    rest = [arm for arm in seconds.arms() if arm != "lora"]
    assert seconds.left_out(rest) == " Left out: lora (not run yet: interrupted at step 12 of 60)."
    no_curve = view().left_out([arm for arm in view().arms() if arm != "base"], without="no k but 0")
    assert no_curve == " Left out: base (no k but 0)."


def test_every_part_has_a_name_and_a_place_of_its_own() -> None:
    with style():
        canvas, _ = new_figure(1.0)
        made = [
            view(budget=budget, how=how, table=table).finish(canvas, kind, title="t", caption="c", alt="a")
            for budget, how, table, kind in product(
                ("tokens", "seconds"), ("own", "tuned"), ("unseen", "seen"), ("heat-nats", "curves-nats")
            )
        ]
    assert len({figure.name for figure in made}) == len(made)
    assert made[0].name == "tokens-unseen-own-heat-nats"
    assert {figure.place for figure in made if "-unseen-" in figure.name} == {
        (kind, budget, how)
        for kind, budget, how in product(("heat", "curves"), ("tokens", "seconds"), ("own", "tuned"))
    }
    assert {figure.place[0] for figure in made if "-seen-" in figure.name} == {"seen"}
