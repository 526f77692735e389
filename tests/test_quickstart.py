"""docs/quickstart.md, followed to the letter, but with a tiny model and two steps."""

import re
import shlex
import shutil
from contextlib import chdir
from pathlib import Path

import pytest
from typer.testing import CliRunner

from innerloop.cli import app
from innerloop.config.loading import load_config
from tiny import save_tiny

PAGE = Path(__file__).parents[1] / "docs" / "quickstart.md"
LAYERS = 9  # LoRA is on the upper quarter
MODEL = "smollm2-135m-q4_1"
VERBS = ["init", "check", "train", "eval", "report", "adapt", "generate", "chat", "export"]
TYPED = "bee ->\n\n"


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's tasks and the config that init writes of them, for a tiny model and two steps."""
    folder = tmp_path_factory.mktemp("quickstart")
    model = save_tiny(tmp_path_factory.mktemp("model"), layers=LAYERS)
    with chdir(folder):
        python(0)
        run(f"{commands()[0]} --model {model}")
    config = folder / "run.yaml"
    config.write_text(re.sub(r"(?<=  steps: )\d+", "2", config.read_text("utf-8")))
    return folder


@pytest.fixture
def workplace(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_config_on_the_page_is_the_one_that_init_writes(workplace: Path) -> None:
    (text,) = blocks("yaml")
    Path("page.yaml").write_text(text)
    page, written = (load_config(workplace / name).resolved() for name in ("page.yaml", "run.yaml"))
    assert page["model"]["name"] == MODEL
    for tree in (page, written):  # what another model and another machine make different
        del tree["model"]["name"], tree["tasks"]["max_length"], tree["method"]["lora"]["layers"], tree["outer"]["steps"]
    assert page == written


def test_the_commands_and_the_files_they_leave(workplace: Path) -> None:
    said = {shlex.split(command)[1]: run(command) for command in commands()[1:]}
    assert ["init", *said] == VERBS
    assert "40 test examples after 10 of the task" in said["adapt"]
    assert len(said["generate"].splitlines()) >= len(Path("data/prompts.txt").read_text().splitlines())
    listed = re.findall(r"^\| `([\w./]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    found = (workplace / "runs/customers").iterdir()
    assert sorted(path.name + "/" * path.is_dir() for path in found) == sorted(listed)
    python(1)  # the adapter, by PEFT alone


def test_the_same_in_python(workplace: Path) -> None:
    python(2)
    assert (workplace / "adapters/two_examples/adapter_config.json").is_file()


def commands() -> list[str]:
    return [line for block in blocks("bash") for line in block.splitlines() if line.startswith("innerloop ")]


def run(command: str) -> str:
    said = CliRunner().invoke(app, shlex.split(command)[1:], input=TYPED, catch_exceptions=False)
    assert said.exit_code == 0, (command, said.output)
    return said.output


def python(number: int) -> None:
    """Runs one of the page's Python blocks in the working directory."""
    exec(compile(blocks("python")[number], f"{PAGE.name}, Python block {number}", "exec"), {})


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
