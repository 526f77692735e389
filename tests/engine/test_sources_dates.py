"""What a chat template writes of the day is that of the day a run or a comparison was begun, ever after."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from innerloop.comparison.compare import begin
from innerloop.config.loading import load_config
from innerloop.engine.session import prepare
from innerloop.errors import UserError
from innerloop.loading.models import load
from innerloop.runs.meta_train import meta_train
from innerloop.runs.reloading import load_run
from record_files import write
from small_matrices import matrix_file
from small_runs import LAYERS, NAMES, ROWS, World, config_file, manifest_of, settings
from tiny import CHAT_TEMPLATE, save_tiny, tiny_tokenizer

DAY, OTHER = "2026-12-01", "2026-12-02"
CHAT = [{"role": "user", "content": "2+2"}]


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("dated")
    base = save_tiny(folder / "base", layers=LAYERS)
    retemplate(base, "today: {{ strftime_now('%d %b %Y') }}\n" + CHAT_TEMPLATE)
    for name in NAMES:
        rows = [
            {"messages": [{"role": "user", "content": f"{name} {row}"}, {"role": "assistant", "content": f"{row}"}]}
            for row in range(ROWS)
        ]
        write(made(folder / "tasks") / f"{name}.jsonl", *rows)
    return World(base, folder / "tasks", load(str(base)))


def made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def retemplate(base: Path, template: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(base)


class Stopped(BaseException):
    pass


def stop(*_: object) -> None:
    raise Stopped


def begun_on(world: World, output: Path, day: str) -> None:
    """Two of four steps."""
    changes = {"tasks.date": day, "outer.steps": 4, "save.every": 1}
    with pytest.raises(Stopped):
        meta_train(settings(world, "fomaml-lora", output, changes), model=world.model, on_step=stop)


def texts(world: World, encoder: Any) -> str:
    (start,) = encoder.starts([CHAT], "messages")
    return str(world.model.tokenizer.decode(list(start.tokens)))


def test_a_run_is_of_the_day_that_it_begins(dated: World, tmp_path: Path) -> None:
    session = prepare(load_config(settings(dated, "fomaml-lora", tmp_path / "run")), model=dated.model)
    assert session.config.tasks.date == datetime.now().date().isoformat()
    assert session.config.resolved()["tasks"]["date"] == session.config.tasks.date
    assert f"today: {datetime.now().strftime('%d %b %Y').lower()}" in texts(dated, session.encoder)


def test_a_template_without_a_date_asks_for_none(world: World, tmp_path: Path) -> None:
    session = prepare(load_config(settings(world, "fomaml-lora", tmp_path / "run")), model=world.model)
    assert session.config.tasks.date is None
    assert "date" not in session.config.resolved()["tasks"]


def test_resuming_adapting_and_evaluating_stay_on_that_day(dated: World, tmp_path: Path) -> None:
    changes = {"outer.steps": 4, "save.every": 1}
    begun_on(dated, tmp_path / "run", DAY)
    meta_train(settings(dated, "fomaml-lora", tmp_path / "run", changes), model=dated.model, resume=True)
    assert manifest_of(tmp_path / "run")["config"]["tasks"]["date"] == DAY
    learned = load_run(tmp_path / "run")
    assert "today: 01 dec 2026" in texts(dated, learned.encoder)
    rows = [{"messages": [*CHAT, {"role": "assistant", "content": "4"}]}]
    assert "today: 01 dec 2026" in dated.model.tokenizer.decode(list(learned.encoded(rows)[0].tokens))


def test_another_day_on_resume_is_a_changed_key(dated: World, tmp_path: Path) -> None:
    begun_on(dated, tmp_path / "run", DAY)
    changes = {"tasks.date": OTHER, "outer.steps": 4, "save.every": 1}
    with pytest.raises(UserError, match=r"tasks\.date: changed since the run was begun"):
        meta_train(settings(dated, "fomaml-lora", tmp_path / "run", changes), model=dated.model, resume=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda base: retemplate(base, "hi\n" + CHAT_TEMPLATE), "the text of the prompts changed"),
        (lambda base: shuffled(base), "how examples become tokens changed"),
    ],
)
def test_a_changed_prompt_text_is_told_from_other_tokens_of_the_same(
    world: World, dated: World, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    base = save_tiny(tmp_path / "base", layers=LAYERS)
    mine = World(base, dated.tasks, load(str(base)))
    begun_on(mine, tmp_path / "run", DAY)
    change(base)
    changed = World(base, dated.tasks, load(str(base)))
    changes = {"tasks.date": DAY, "outer.steps": 4, "save.every": 1}
    with pytest.raises(UserError, match=said) as caught:
        meta_train(settings(changed, "fomaml-lora", tmp_path / "run", changes), model=changed.model, resume=True)
    assert len(caught.value.faults) == 1


def shuffled(base: Path) -> None:
    """The same letters, as other ids."""
    path = base / "tokenizer.json"
    said = json.loads(path.read_text())
    vocab = said["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    path.write_text(json.dumps(said))


def test_a_comparison_stays_on_the_day_that_it_was_begun(dated: World, tmp_path: Path) -> None:
    file, folder = matrix_file(dated, tmp_path), tmp_path / "comparison"
    first = begin(file, folder)
    assert first.matrix.runs.every["tasks"]["date"] == datetime.now().date().isoformat()
    plan = folder / "matrix.json"
    plan.write_text(plan.read_text().replace(first.matrix.runs.every["tasks"]["date"], DAY))  # begun on another day
    assert begin(file, folder).matrix.runs.every["tasks"]["date"] == DAY
    assert json.loads(plan.read_text())["matrix"]["runs"]["every"]["tasks"]["date"] == DAY


@pytest.mark.parametrize("day", ["2026-13-01", "2026-02-30", "1.12.2026", 20261201, "tomorrow"])
def test_what_is_no_day_is_refused(world: World, tmp_path: Path, day: Any) -> None:
    with pytest.raises(UserError, match=r"tasks\.date: not a value"):
        load_config(settings(world, "fomaml-lora", tmp_path / "run", {"tasks.date": day}))
    path = config_file(world, tmp_path, changes={"tasks.date": "2026-12-01"})
    path.write_text(path.read_text().replace("'2026-12-01'", "2026-12-01"))  # YAML would make it a date
    assert load_config(path).tasks.date == "2026-12-01"
