"""Bugs that would make every comparison worthless, planted into a copy of the source: the normal tests find them.

planted/*.patch are unified diffs. A patch whose context is no longer in the source fails here: plant the bug anew.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PATCHES = ROOT / "tests" / "planted"
KSHOT, GENERATION = "tests/evaluation/test_kshot.py", "tests/evaluation/test_generation.py"
SCORES = "tests/comparison/test_scores.py"

# Patch -> normal tests that each fail for it.
CAUGHT = {
    "unadapted-scores": [f"{KSHOT}::test_one_adaptation_gives_the_scores_after_each_number_of_steps[fomaml-lora]"],
    "unadapted-answers": [f"{GENERATION}::test_an_answer_learned_by_heart_is_right_and_was_wrong_before[fomaml-lora]"],
    "support-in-test": [f"{SCORES}::test_nothing_that_is_adapted_to_is_tested_on"],
    "query-is-support": [
        "tests/data/test_batches.py::test_a_task_batch_holds_the_examples_that_were_drawn",
        "tests/engine/test_session.py::test_support_query_and_test_share_nothing_and_every_example_is_drawn[fomaml-lora]",
    ],
}

# What pytest is run with: the copy has to win over the installed package.
RUN = """
import sys
from pathlib import Path

import innerloop

assert Path(innerloop.__file__).is_relative_to(sys.argv[1]), innerloop.__file__
import pytest

sys.exit(pytest.main(sys.argv[2:]))
"""


class Hunk(NamedTuple):
    """Lines of a file, with their ends, and what takes their place."""

    old: str
    new: str


def hunks(patch: str) -> dict[str, list[Hunk]]:
    """File -> its hunks; what stands before the first file says what the bug is."""
    found: dict[str, list[Hunk]] = {}
    for name, part in re.findall(r"^\+\+\+ b/(.+)\n((?:[@ +-].*\n|\n)+)", patch, re.MULTILINE):
        for body in re.split(r"^@@ .*\n", part, flags=re.MULTILINE)[1:]:
            lines = [line if line.strip("\n") else f" {line}" for line in body.splitlines(keepends=True)]
            old, new = ("".join(line[1:] for line in lines if line[0] in kinds) for kinds in (" -", " +"))
            found.setdefault(name, []).append(Hunk(old, new))
    assert found, "a patch without a hunk"
    return found


def planted(text: str, hunk: Hunk) -> str:
    """Raises AssertionError where the hunk's lines are not there, or there more than once."""
    assert hunk.old != hunk.new
    assert text.count(hunk.old) == 1, f"the source no longer has these lines once:\n{hunk.old}"
    return text.replace(hunk.old, hunk.new)


def copied(folder: Path, patch: str | None = None) -> Path:
    """The source, with a bug or without."""
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
    source = Path(shutil.copytree(ROOT / "src", folder / "src", ignore=left_out))
    for name, changes in hunks((PATCHES / f"{patch}.patch").read_text()).items() if patch else ():
        path = folder / name
        for hunk in changes:
            path.write_text(planted(path.read_text(), hunk))
    return source


def run(source: Path, tests: list[str]) -> subprocess.CompletedProcess[str]:
    """The tests, with this source. A process of its own: here the other source is imported already."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    env = own | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    options = ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly", "-rf", "--tb=line"]
    argv = [sys.executable, "-c", RUN, str(source), *options, *tests]
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("patch", CAUGHT)
def test_a_planted_bug_turns_the_tests_red(patch: str, tmp_path: Path) -> None:
    done = run(copied(tmp_path, patch), CAUGHT[patch])
    assert done.returncode == 1, done.stdout + done.stderr
    failed = re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    assert sorted(failed) == sorted(CAUGHT[patch]), done.stdout


def test_without_a_bug_the_same_tests_are_green(tmp_path: Path) -> None:
    tests = sorted({test for each in CAUGHT.values() for test in each})
    done = run(copied(tmp_path), tests)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(tests)} passed" in done.stdout


def test_every_patch_is_tried() -> None:
    assert {path.stem for path in PATCHES.glob("*.patch")} == CAUGHT.keys()


def test_a_patch_of_another_source_fails_loudly() -> None:
    ((hunk,),) = hunks("--- a/x.py\n+++ b/x.py\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n\n three\n").values()
    assert hunk == Hunk("one\ntwo\n\nthree\n", "one\n2\n\nthree\n")
    assert planted("zero\none\ntwo\n\nthree\nfour\n", hunk) == "zero\none\n2\n\nthree\nfour\n"
    for other in ("one\nthree\n", "one\n2\n\nthree\n", 2 * "one\ntwo\n\nthree\n"):
        with pytest.raises(AssertionError, match="no longer has these lines once"):
            planted(other, hunk)
    with pytest.raises(AssertionError, match="without a hunk"):
        hunks("")


def test_the_copy_wins_over_the_installed_package(tmp_path: Path) -> None:
    """Else the control would be the source itself, and no bug would ever be found."""
    done = run(tmp_path / "no source", ["--version"])
    assert done.returncode == 1
    assert "AssertionError" in done.stderr
