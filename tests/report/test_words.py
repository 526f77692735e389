"""The words for what results.json names, and text that any page can hold."""

import pytest

from innerloop.report.words import MAIN_METRICS, absence, printable, unequal
from innerloop.results.names import COST
from results_example import HOSTILE_REASON, example, read

NATS, ACCURACY = MAIN_METRICS


def test_why_an_arm_has_no_score() -> None:
    results = read(example())
    assert absence(results, "seconds", "fomaml-lora") == f"failed: {HOSTILE_REASON}"
    assert absence(results, "seconds", "lora") == "not run yet: interrupted at step 12 of 60"
    assert absence(results, COST, "joint") == "cost only, not scored"
    assert absence(results, "tokens", "nobody") == "no score in these results"


def test_text_that_no_page_can_hold_is_replaced() -> None:
    given = example() | {"name": "a\x00bc\x1b[0m\td\ne é 漢 🙂"}
    given["protocol"]["held_out"] = ["\x08"]
    given["scores"][0]["tasks"] = {"\x07": 1.0}
    results = read(given)
    assert results.budgets == ["tokens", "seconds"], "what was looked up before is looked up again"
    shown = printable(results)
    assert shown.name == "a�bc�[0m\td\ne é 漢 🙂"
    assert shown.tasks("unseen")[0] == "�"
    assert shown.scores[0].tasks == {"�": 1.0}
    assert results.name == given["name"], "the results are only read"
    assert printable(read(example())) == read(example())


def test_arms_that_adapt_differently_say_so() -> None:
    found = read(example()).differences[0]
    for how, reference_how, told in (("none", "tuned", "joint-lora tuned"), ("own", "own", "")):
        assert unequal(found.model_copy(update={"how": how, "reference_how": reference_how})) == told


@pytest.mark.parametrize(
    ("low", "high", "nats", "accuracy"),
    [
        (-0.19, -0.05, "0.050 to 0.190 lower", "5.0 to 19.0 points lower"),
        (0.05, 0.19, "0.050 to 0.190 higher", "5.0 to 19.0 points higher"),
        (-0.05, 0.02, "0.050 lower to 0.020 higher", "5.0 points lower to 2.0 points higher"),
        (0.0, 0.0, "0.000 to 0.000", "0.0 to 0.0 points"),
        (-0.1, 0.0, "0.000 to 0.100 lower", "0.0 to 10.0 points lower"),
    ],
)
def test_an_interval_in_words(low: float, high: float, nats: str, accuracy: str) -> None:
    assert (NATS.between(low, high), ACCURACY.between(low, high)) == (nats, accuracy)


def test_a_number_that_rounds_to_zero_has_no_sign() -> None:
    assert [NATS.change(value) for value in (-0.0001, 0.0001, -0.12, 0.12)] == ["0.000", "0.000", "−0.120", "+0.120"]
    assert [ACCURACY.words(value) for value in (-0.0001, -0.12)] == ["0.0 points", "12.0 points lower"]
