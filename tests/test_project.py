"""The way in: what runs at a commit is what `make` runs, and the forms for issues ask for what there is."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def test_a_commit_is_checked_by_the_tools_that_make_runs_and_downloads_nothing() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert {hook["id"] for hook in repository["hooks"]} == {"check", "format", "imports", "types"}
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        tool, *paths = hook["entry"].split()
        assert re.search(rf"\$\(BIN\)/{tool.removeprefix('.venv/bin/')}\b", MAKEFILE), hook["id"]
        assert all((ROOT / path).is_dir() for path in paths if path.startswith("src/")), hook["id"]
    (types,) = (hook["entry"] for hook in repository["hooks"] if hook["id"] == "types")
    assert types.split()[1:] == PROJECT["tool"]["pyright"]["strict"]


@pytest.mark.parametrize("form", FORMS, ids=[form.stem for form in FORMS])
def test_a_form_for_issues_can_be_filled_in(form: Path) -> None:
    """As GitHub has it: https://docs.github.com/communities/using-templates-to-encourage-useful-issues."""
    found: dict[str, Any] = yaml.safe_load(form.read_text())
    assert found.keys() == {"name", "description", "labels", "body"}
    ids = [field["id"] for field in found["body"]]
    assert len(set(ids)) == len(ids) > 2
    for field in found["body"]:
        assert field["type"] in ("input", "textarea")
        assert field["attributes"]["label"]
        assert field.keys() <= {"type", "id", "attributes", "validations"}
    assert any(field.get("validations", {}).get("required") for field in found["body"])


def test_there_is_a_form_for_each_kind_of_issue() -> None:
    assert [form.stem for form in FORMS] == ["bug", "feature", "surprise"]


def test_what_the_classifiers_say_is_so() -> None:
    project = PROJECT["project"]
    oldest = project["requires-python"].removeprefix(">=")
    assert f"Programming Language :: Python :: {oldest}" in project["classifiers"]
    assert "Typing :: Typed" in project["classifiers"]
    assert (ROOT / "src" / "innerloop" / "py.typed").is_file()
    assert not any(re.match("License", each) for each in project["classifiers"]), "the SPDX expression says it"
