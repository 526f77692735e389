"""An arm looks the same in every figure, and no two look alike."""

import re

from innerloop.report.figure_style import looks, marker_path
from report.conftest import ARMS


def test_an_arm_has_one_look_in_colour_and_in_grey() -> None:
    known = looks(ARMS)
    assert looks(["meta-lora", "base"])["meta-lora"] == known["meta-lora"], "whatever else is shown"
    assert len(set(known.values())) == len(ARMS)
    assert len({(look.marker, look.hollow, look.line) for look in known.values()}) == len(ARMS), "without colour"
    others = looks([*ARMS, "newest", "another"])
    assert {arm: others[arm] for arm in ARMS} == known
    assert others["newest"] != others["another"]
    assert not {others["newest"], others["another"]} & set(known.values())
    assert all(re.fullmatch(r"[MLQCZ \d.-]+", marker_path(look)) for look in known.values())
