"""The walks of CONTRIBUTING.md, taken on a copy of the sources: each is a change that works."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def blocks() -> list[str]:
    walk = (ROOT / "CONTRIBUTING.md").read_text().split("## Your first change")[1].split("## House rules")[0]
    return re.findall(r"```python\n(.*?)```", walk, re.DOTALL)


def inserted(path: Path, before: str, text: str) -> None:
    source = path.read_text()
    assert source.count(before) == 1, before
    path.write_text(source.replace(before, text + before))


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources and the naive reference with all three changes."""
    place = tmp_path_factory.mktemp("changed")
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    method, naive, suite, verifier = blocks()
    library = place / "src" / "innerloop"
    rules = library / "learning" / "methods.py"
    inserted(rules, "class Option(", f"{method}\n\n")
    inserted(rules, '    "joint-lora": Row(', '    "half-lora": Row(Half, LORA, "half at the start"),\n')
    source = rules.read_text()
    if "zeros_like" not in source.split("class ")[0]:
        rules.write_text(source.replace("import TensorSet,", "import TensorSet, zeros_like,", 1))
    inserted(place / "tests" / "reference" / "naive.py", "def joint(", f"{naive}\n\n")
    path = place / "tests" / "reference" / "naive.py"
    path.write_text(path.read_text().replace('{"fomaml": fomaml,', '{"half": half, "fomaml": fomaml,'))
    (library / "data" / "suites" / "sums.py").write_text(suite)
    table = library / "data" / "suites" / "__init__.py"
    table.write_text(table.read_text().replace("import hidden_rules,", "import sums, hidden_rules,"))
    inserted(table, '    "hidden-rules": Suite(', '    "sums": Suite(sums.task_names, sums.build, None),\n')
    checks = library / "data" / "verifiers.py"
    inserted(checks, "VERIFIERS: dict", f"{verifier}\n\n")
    checks.write_text(
        checks.read_text().replace('{"exact": exact_match,', '{"mentioned": mentioned, "exact": exact_match,')
    )
    return place


def run(place: Path, *command: str) -> str:
    environment = {"PYTHONPATH": f"{place / 'src'}:{place / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_a_method_is_held_to_every_law(changed: Path) -> None:
    """Its row alone: that it is its naive twin, and that its tokens are those that went through the model."""
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(changed), "--import-mode=importlib"]
    said = run(changed, "-m", "pytest", *options, "tests/learning/test_methods.py", "-k", "half-lora")
    assert re.match(r"\.{5,}", said), "no law was asked of it"


def test_the_command_line_knows_all_three(changed: Path) -> None:
    assert "half-lora" in run(changed, "-m", "innerloop", "methods")
    code = (
        "from innerloop.data.suites import build_suite; from innerloop.data.verifiers import verifier_of\n"
        "from innerloop.data.tasks import Example\n"
        "tasks = build_suite('sums', seed=1, examples_per_task=20, test_examples=5)\n"
        "assert [(t.name, len(t.pool), len(t.test)) for t in tasks] == [(f'plus_{n}', 20, 5) for n in (3, 7, 11)]\n"
        "check = verifier_of('mentioned')\n"
        "assert (check(Example('x', ' 42'), 'it is 42.'), check(Example('x', ' 42'), 'it is 4')) == (1.0, 0.0)\n"
    )
    run(changed, "-c", code)
