"""The rooms of the sources: how many floors, and no circle."""

from pathlib import Path

import house
import pytest

FLOORS = 11


def test_no_more_than_eleven_floors_and_no_circle() -> None:
    found = house.measured()
    assert found.circle == []
    assert len(found.chain) <= FLOORS, found.chain
    assert found.chain[0] == "__main__"
    assert {"cli", "runs", "engine", "learning", "spaces", "data", "numerics"} <= set(found.imports)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """top.py -> middle/ -> low/, and an import for types alone the other way."""
    source = tmp_path / "innerloop"
    for name, text in {
        "__init__.py": "",
        "top.py": "from innerloop.middle import part\n",
        "middle/__init__.py": "",
        "middle/part.py": "import torch\n\ndef late():\n    import innerloop.low.base\n",
        "low/__init__.py": "",
        "low/base.py": (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from innerloop.top import anything\n"
        ),
    }.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    return source


def test_a_chain_and_its_arrows(package: Path) -> None:
    found = house.measured(package)
    assert found.chain == ["top", "middle", "low"]
    assert found.arrows == 2
    assert found.circle == []


def test_a_circle_is_seen(package: Path) -> None:
    (package / "low" / "base.py").write_text("from innerloop import top\n")
    assert set(house.measured(package).circle) == {"top", "middle", "low"}
