"""examples/public_tasks.py on a few rows of made-up data in the layout of the public ones."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from innerloop.config.loading import RunConfig, load_config
from innerloop.data.examples import read_tasks
from innerloop.data.leaks import overlaps
from innerloop.data.suites.words import LABELS, WORDS
from innerloop.data.tasks import Task

SCRIPT = Path(__file__).parents[1] / "examples" / "public_tasks.py"
SIZES = {(4 + more, 10 + other, 24) for more in (0, 1) for other in (0, 1)}  # the last concept may have two tasks
CONCEPTS = [f"task{letter}" for letter in "abcdefghijklmnop"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def clones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The layouts of both repositories."""
    root = tmp_path_factory.mktemp("clones")
    for kind in ("abstractive", "extractive"):
        (root / "dataset_files" / kind).mkdir(parents=True)
    for place, concept in enumerate(CONCEPTS):
        for size in ("_3", "_5") if place % 2 else ("",):
            pairs = [{"input": word, "output": f"{word}{place}"} for word in WORDS[place : place + 44]]
            pairs += [{"input": WORDS[place], "output": "another"}, {"input": "x" * 70, "output": "long"}]
            kind = "extractive" if size else "abstractive"
            (root / "dataset_files" / kind / f"{concept}{size}.json").write_text(json.dumps(pairs))
    (root / "dataset_files" / "abstractive" / "short.json").write_text(
        json.dumps([{"input": word, "output": "few"} for word in WORDS[:9]])
    )
    split = root / "data" / "BANKING77" / "few_shot" / "02"
    split.mkdir(parents=True)
    for file in ("train", "valid", "test"):
        rows = [
            {"sentence": f"{file} question {number} on  {name}", "label": f"{file}-{name}"}
            for name in WORDS[:6]
            for number in range(12)
        ]
        rows.append({"sentence": "long " * 40, "label": rows[0]["label"]})
        (split / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"words": root, "intents": root}


def made(
    script: ModuleType, data: str, clones: dict[str, Path], output: Path
) -> tuple[RunConfig, dict[str, list[Task]]]:
    """The config, and the tasks of each role as a run reads them."""
    script.main([data, str(clones[data]), str(output), "--split", "2"])
    config = load_config(output / "run.yaml")
    assert config.tasks.folder is not None
    tasks = {task.name: task for task in read_tasks(config.tasks.folder, test=5).tasks}
    unseen = {"validation": config.tasks.validation, "held_out": config.tasks.held_out}
    roles = {role: [tasks[name] for name in names] for role, names in unseen.items()}
    train = [task for name, task in tasks.items() if name not in {*config.tasks.validation, *config.tasks.held_out}]
    return config, {"train": train, **roles}


def test_word_tasks_are_split_by_concept(script: ModuleType, clones: dict[str, Path], tmp_path: Path) -> None:
    _, roles = made(script, "words", clones, tmp_path / "words")
    concepts = {role: {re.sub(r"_\d$", "", task.name) for task in tasks} for role, tasks in roles.items()}
    assert (len(roles["validation"]), len(roles["held_out"]), sum(map(len, roles.values()))) in SIZES
    assert sorted(name for names in concepts.values() for name in names) == CONCEPTS
    assert overlaps(roles) == []
    for task in (task for tasks in roles.values() for task in tasks):
        assert len(task.pool) + len(task.test) == 44
        first = next(each for each in (*task.pool, *task.test) if each.accepted)
        assert (first.answer[0], first.accepted) == (" ", (" another",))
        assert re.fullmatch(r"Q: \w+\nA:", str(first.prompt))


def test_a_concept_is_held_out_whole(script: ModuleType) -> None:
    names = ["choose_first_of_3", "choose_first_of_5", "choose_last_of_5", "capitalize_last_letter", "capitalize"]
    assert [script._concept(name) for name in (*names, "lowercase_first_letter", "next_capital_letter")] == [
        *("choose_first_of", "choose_first_of", "choose_last_of", "letter", "capitalize"),
        *("letter", "next_capital_letter"),
    ]
    one, other = {"prompt": "Q: a\nA:", "completion": [" B"]}, {"prompt": "Q: A\nA:", "completion": [" z", " b"]}
    assert script._without_known({"train": {"x": [one]}, "held_out": {"y": [other, {**one, "prompt": "Q: c\nA:"}]}})[
        "held_out"
    ] == {"y": [{"prompt": "Q: c\nA:", "completion": [" B"]}]}


def test_intents_have_classes_of_their_role_and_words_of_their_task(
    script: ModuleType, clones: dict[str, Path], tmp_path: Path
) -> None:
    config, roles = made(script, "intents", clones, tmp_path / "intents")
    assert [len(tasks) for tasks in roles.values()] == [96, 8, 24]
    assert config.tasks.held_out[0] == "test-00"
    assert overlaps(roles) == []
    meanings: set[tuple[str, str]] = set()
    for role, file in (("train", "train"), ("validation", "valid"), ("held_out", "test")):
        for task in roles[role]:
            told: dict[str, str] = {}
            for example in (*task.pool, *task.test):
                found = re.fullmatch(rf"{file} question \d+ on (\w+)\nlabel:", str(example.prompt))
                assert found is not None
                assert told.setdefault(found[1], example.answer) == example.answer
            assert len(told) == len(set(told.values())) == 4
            assert {answer.strip() for answer in told.values()} <= set(LABELS)
            meanings |= set(told.items()) if role == "train" else set()
    assert len(meanings) > 6  # classes of training tasks: each has another word in another task


def test_the_same_seed_gives_the_same_files(script: ModuleType, clones: dict[str, Path], tmp_path: Path) -> None:
    def files(name: str, seed: str) -> list[str]:
        script.main(["intents", str(clones["intents"]), str(tmp_path / name), "--split", "2", "--seed", seed])
        return [path.read_text() for path in sorted((tmp_path / name / "tasks").iterdir())]

    first = files("one", "3")
    assert files("two", "3") == first
    assert files("three", "4") != first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["words", "absent", "out"], "no such folder"), (["words", ".", "."], "there already")],
)
def test_what_is_missing_or_there_already_is_said(
    script: ModuleType,
    clones: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(clones["words"])
    with pytest.raises(SystemExit) as caught:
        script.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
