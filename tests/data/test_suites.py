import functools
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from innerloop.data.suites import (
    SUITES,
    build_suite,
    describe,
    math_science,
    quantities,
    science,
    suite_task_names,
)
from innerloop.data.suites.drawing import DIFFICULTIES, Difficulty
from innerloop.data.tasks import Task
from innerloop.errors import UserError

DOCS = Path(__file__).parents[2] / "docs" / "suites.md"
DIGEST = """
import sys
from innerloop.data.suites import SUITES, build_suite, suite_task_names
for name in SUITES:
    suite_task_names(name)
print(sorted({"reasoning_gym", "pint", "periodictable"} & set(sys.modules)))
for name in SUITES:
    for task in build_suite(name, seed=11, examples_per_task=20, test_examples=5):
        print(task.name, task.family, [(e.prompt, e.answer) for e in task.pool + task.test])
"""


def fresh(name: str, seed: int = 11, pool: int = 20, test: int = 5, difficulty: Difficulty = "default") -> list[Task]:
    return build_suite(name, seed=seed, examples_per_task=pool, test_examples=test, difficulty=difficulty)


build = functools.cache(fresh)


def test_another_process_builds_the_same_and_naming_tasks_imports_nothing() -> None:
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "12345", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", DIGEST]
    theirs = subprocess.run(command, env=environment, capture_output=True, check=True).stdout.decode()
    imported, _, tasks = theirs.replace("\r\n", "\n").partition("\n")
    ours = "".join(
        f"{task.name} {task.family} {[(e.prompt, e.answer) for e in task.pool + task.test]}\n"
        for name in SUITES
        for task in build(name)
    )
    assert imported == "[]"
    assert hashlib.sha256(tasks.encode()).hexdigest() == hashlib.sha256(ours.encode()).hexdigest()


@pytest.mark.parametrize("name", SUITES)
def test_equal_arguments_give_equal_tasks_and_another_seed_does_not(name: str) -> None:
    assert fresh(name) == build(name)
    others = {task.name: task for task in build(name, seed=12)}
    for task in build(name):
        assert {e.id for e in task.pool} != {e.id for e in others[task.name].pool}


@pytest.mark.parametrize("name", SUITES)
def test_a_bigger_pool_starts_with_the_smaller_and_keeps_the_test_examples(name: str) -> None:
    for small, large in zip(build(name), build(name, pool=60), strict=True):
        assert large.pool[:20] == small.pool
        assert large.test == small.test


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("name", SUITES)
def test_every_task_has_150_prompts_that_join_their_answers(name: str, difficulty: Difficulty) -> None:
    for task in build(name, pool=110, test=40, difficulty=difficulty):
        examples = (*task.pool, *task.test)
        assert (len(task.pool), len(task.test)) == (110, 40)
        assert len({example.prompt_key for example in examples}) == 150  # not even with another answer
        for example in examples:
            assert str(example.prompt) == str(example.prompt).strip()
            assert re.fullmatch(r" \S(.*\S)?", example.answer)


@pytest.mark.parametrize("name", SUITES)
def test_names_match_what_is_built_and_are_file_names(name: str) -> None:
    names = suite_task_names(name)
    assert names == [(task.name, task.family) for task in build(name)]
    assert len(dict(names)) == len(names)
    for task, family in names:
        assert re.fullmatch(r"[a-z][a-z_]*(/\d+)?", task)
        assert task.partition("/")[0] == family


def test_instances_are_tasks_a_family() -> None:
    names = suite_task_names("hidden-rules", instances=2)
    assert names[:3] == [("affine/0", "affine"), ("affine/1", "affine"), ("units/0", "units")]
    built = build_suite("hidden-rules", seed=1, examples_per_task=5, test_examples=0, instances=2)
    assert [(task.name, task.family) for task in built] == names


def test_a_bad_request_says_what_would_be_right() -> None:
    with pytest.raises(UserError, match='did you mean "hidden-rules"'):
        suite_task_names("hiden-rules")
    with pytest.raises(UserError, match='did you mean "math-science"'):
        build("math_science")
    with pytest.raises(UserError, match="instances: too small"):
        suite_task_names("hidden-rules", instances=0)
    with pytest.raises(UserError) as caught:
        fresh("hidden-rules", pool=0, test=-1, difficulty="eazy")  # pyright: ignore[reportArgumentType]
    text = str(caught.value)
    assert len(caught.value.faults) == 3
    assert "examples_per_task" in text
    assert "test_examples" in text
    assert 'did you mean "easy"' in text


def test_too_few_examples_names_every_task_that_lacks_them() -> None:
    with pytest.raises(UserError) as caught:
        build("math-science", pool=180, test=40)
    text = str(caught.value)
    assert re.search(r"task prime_factorization: [\s\S]*'220 \(180 \+ 40\)'[\s\S]*at most 199", text)
    assert re.search(r"task molar_mass: [\s\S]*at most 200", text)
    assert "task count_bits:" not in text


@pytest.mark.parametrize("module", ["reasoning_gym", "pint", "periodictable"])
def test_a_missing_package_names_the_extra(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for cached in (math_science._dataset, quantities.unit_registry, science.grams_per_mole):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r'pip install "innerloop\[demo\]"'):
        fresh("math-science")


@pytest.mark.parametrize("name", SUITES)
def test_the_docs_show_what_the_suites_hold(name: str) -> None:
    table = describe(name)
    assert table in DOCS.read_text("utf-8"), f"put the output of describe({name!r}) into {DOCS.name}"
    assert table.count("\n") == 2 + len({family for _, family in suite_task_names(name)})
