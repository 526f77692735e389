"""docs/quickstart.md, followed to the letter, but with a tiny model and two steps."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from innerloop.cli import app
from innerloop.config.loading import load_config
from tiny import save_tiny

PAGE = Path(__file__).parents[1] / "docs" / "quickstart.md"
LAYERS = 9  # the page's LoRA is on the last 8
MODEL, STEPS = "smollm2-135m-q4_1", "steps: 20"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), layers=LAYERS)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> Path:
    """A folder with the page's tasks and config."""
    monkeypatch.chdir(tmp_path)
    python(0)
    (config,) = blocks("yaml")
    assert MODEL in config
    assert STEPS in config
    Path("run.yaml").write_text(config.replace(MODEL, str(model)).replace(STEPS, "steps: 2"))
    return tmp_path


def test_the_config_is_one(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    (tmp_path / "run.yaml").write_text(text)
    assert load_config(tmp_path / "run.yaml").model.name == MODEL


def test_the_commands_and_the_files_they_leave(workplace: Path) -> None:
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("innerloop ")]
    for command in commands:
        said = CliRunner().invoke(app, shlex.split(command)[1:], catch_exceptions=False)
        assert said.exit_code == 0, (command, said.output)
    assert [shlex.split(command)[1] for command in commands] == ["check", "train", "adapt", "export"]
    listed = re.findall(r"^\| `([\w./]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(path.name + "/" * path.is_dir() for path in (workplace / "runs/first").iterdir()) == sorted(listed)
    python(1)  # the adapter, by PEFT alone


def test_the_same_in_python(workplace: Path) -> None:
    python(2)
    assert (workplace / "adapters/two_examples/adapter_config.json").is_file()


def python(number: int) -> None:
    """Runs one of the page's Python blocks in the working directory."""
    exec(compile(blocks("python")[number], f"{PAGE.name}, Python block {number}", "exec"), {})


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
