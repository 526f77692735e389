"""The configs that come with innerloop: each is sound, and none is written over a file."""

from pathlib import Path

import pytest

from innerloop.config.loading import load_config
from innerloop.errors import UserError
from innerloop.recipes import copy_recipe, recipes


@pytest.mark.parametrize("name", recipes())
def test_each_recipe_is_a_sound_config_with_a_sentence_on_top(name: str, tmp_path: Path) -> None:
    about = recipes()[name]
    assert about.endswith(".")
    assert len(about) <= 110
    written = copy_recipe(name, tmp_path)
    assert load_config(written).output_dir == Path("runs") / name


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    name = next(iter(recipes()))
    target = copy_recipe(name, tmp_path / "mine.yaml")
    target.write_text("changed")
    with pytest.raises(UserError, match="there already"):
        copy_recipe(name, target)
    assert target.read_text() == "changed"


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='did you mean "own-tasks"'):
        copy_recipe("own-task", tmp_path)
    assert list(tmp_path.iterdir()) == []
