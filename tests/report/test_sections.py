"""The parts of a page: their order, every figure in one of them, and a sentence where something is absent."""

from collections import Counter
from typing import Any

from innerloop.report.page import Block, Figure, Heading, PageSection, Prose, Table
from innerloop.report.sections import sections
from innerloop.results.cell_files import PlannedProtocol
from innerloop.results.schema import Results
from report.conftest import small
from results_example import HOSTILE_REASON, example, few_seeds, read

EMPTY = Results(format=1, name="nothing yet", status="partial", protocol=PlannedProtocol(draws=1))
REST = "verdict notes detectable t2-tokens t2-seconds t1 contrasts matrix adaptation rerun environment"
HOWS = ("own", "tuned")


def figure(kind: str, budget: str = "tokens", how: str = "none") -> Figure:
    return Figure(f"{budget}-{how}-{kind}", (kind, budget, how), "title", "caption", "alt")


def prose(section: PageSection) -> list[str]:
    return ["".join(span.text for span in block.spans) for block in section.blocks if isinstance(block, Prose)]


def part(results: Results, name: str, drawn: Any = ()) -> PageSection:
    (found,) = (section for section in sections(results, drawn) if section.name == name)
    return found


def test_the_parts_stand_in_their_order() -> None:
    found = sections(read(example()), [])
    assert [section.name for section in found] == ["result", "answers", *REST.split()]
    assert [section.name for section in found if not section.folded] == ["result", "answers"]
    one = [section.name for section in sections(read(small()), [])]
    without = {"t2-seconds", "t1"}
    assert one == ["result", "answers", *(name for name in REST.split() if name not in without)]
    drawn = [figure("right"), figure("curves", how="own"), figure("training")]
    assert {"growth", "training"} == {s.name for s in sections(read(example()), drawn)} - {s.name for s in found}


def test_every_figure_stands_once_and_in_its_part() -> None:
    places = {
        "result": [figure("right", "tokens", "own")],
        "growth": [figure("curves", "tokens", "own")],
        "t2-tokens": [
            figure("curves", "tokens", "tuned"),
            *(figure(kind, "tokens", how) for how in HOWS for kind in ("differences", "heat")),
        ],
        "t2-seconds": [figure("curves", "seconds", "own")],
        "t1": [figure("seen")],
        "matrix": [figure("cost"), figure("cost", "cost")],
        "adaptation": [figure("adaptation", "tokens", "own")],
        "training": [figure("training"), figure("training", "seconds")],
    }
    drawn = [each for figures in places.values() for each in figures]
    made = sections(read(example()), drawn)
    found = {s.name: [block.name for block in s.blocks if isinstance(block, Figure)] for s in made}
    for name, figures in places.items():
        assert Counter(found[name]) == Counter(each.name for each in figures)
    assert sum(map(len, found.values())) == len(drawn)
    assert not any(isinstance(block, Figure) for s in sections(read(example()), []) for block in s.blocks)


def test_the_figures_of_a_kind_stand_beside_its_table() -> None:
    """Under the heading of their adaptation, before the table that has the same numbers."""
    drawn = [figure("differences", "tokens", how) for how in HOWS]
    blocks: list[Block] = part(read(example()), "t2-tokens", drawn).blocks
    kinds = [type(block) for block in blocks if not isinstance(block, Prose)]
    assert kinds[:5] == [Heading, Table, Table, Figure, Table]
    heads = [place for place, block in enumerate(blocks) if isinstance(block, Heading)]
    assert [blocks[place + 3] for place in heads] == drawn


def test_a_part_that_would_be_empty_is_left_out() -> None:
    made = {section.name: " ".join(prose(section)) for section in sections(EMPTY, [])}
    assert made.keys() == {"result", "notes", "detectable", "matrix", "environment"}
    assert "not finished" in made["result"]
    assert "Nothing in these results was scored." in made["result"]


def test_what_failed_is_told_with_its_reason_and_few_seeds_are() -> None:
    notes = prose(part(read(example()), "notes"))
    assert any("fomaml-lora" in line and HOSTILE_REASON in line for line in notes)
    assert not any("It takes 3 seeds" in line for line in notes)
    assert any(
        "1 training seed: " in line and "It takes 3 seeds" in line for line in prose(part(read(few_seeds()), "notes"))
    )


def test_what_is_there_in_part_is_named_as_such() -> None:
    seen = prose(part(read(example()), "t1"))
    assert "No score on seen tasks: in-context and lora." in seen
