"""Methods and verifiers of other installed packages, through the command line, in processes that have them installed.

A package is a module and the metadata of an installation, in a folder that a child process looks for modules in.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from config_examples import faults_of, minimal
from innerloop.config.schema import ABSENT
from record_files import write
from small_matrices import matrix_file
from small_runs import SUPPORT, Said, World, config_file, manifest_of, small_run

SRC = Path(__file__).parents[1] / "src"
DOCS = Path(__file__).parents[1] / "docs" / "plugins.md"
# The page's own code, a verifier that a model of random weights fulfils, and a kind of space.
GOOD = (
    DOCS.read_text().partition("```python\n")[2].partition("```")[0]
    + """

def lenient(example, text):
    return 1.0


from dataclasses import replace

from innerloop.spaces.all_parameters import AllParameters
from innerloop.spaces.kinds import ALL_PARAMETERS
from innerloop.spaces.loss import AnswerLoss


class Norms(AllParameters):
    def __init__(self, model, loss):
        super().__init__(model, loss)
        self.parameters = {name: value for name, value in self.parameters.items() if "norm" in name}
        self.shared = {name: value for name, value in self.shared.items() if "norm" in name}


NORMS = replace(ALL_PARAMETERS, name="norms", title="norms", make=lambda model, _: Norms(model, AnswerLoss(model)))
NORMS_ROW = Row(Fomaml, NORMS, "first-order MAML")
"""
)
BAD = """
from innerloop.learning.methods import Fomaml, Row
from innerloop.spaces.kinds import LORA

NUMBER = 3
ROW = Row(Fomaml, LORA, "again")


def one(text):
    return 1.0
"""
CHILD = """
import contextlib, io, json, sys
from innerloop.cli import main
said = []
for argv in json.loads(sys.argv[1]):
    sys.argv, code = ["innerloop", *argv], 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    said.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(said))
"""


def installed(site: Path, package: str, code: str, groups: Mapping[str, Mapping[str, str]]) -> Path:
    """groups: entry points of each group, name -> what it stands for."""
    metadata = site / f"{package}-1.5.dist-info"
    metadata.mkdir(parents=True)
    (site / f"{package}.py").write_text(code)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
    lines = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in points.items()) for group, points in groups.items()]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    return site


def innerloop(site: Path, *calls: list[Any]) -> list[Said]:
    """Each call a command line, one after the other in a process of their own. An exception would end it."""
    paths = os.pathsep.join([str(site), str(SRC)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "1000"}
    argv = [sys.executable, "-c", CHILD, json.dumps([[str(word) for word in call] for call in calls])]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = [Said(*each) for each in json.loads(done.stdout)]
    assert not any("Traceback" in each.out + each.err for each in said)
    return said


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    groups = {
        "innerloop.methods": {"damped-lora": "dampers:DAMPED", "fomaml-norms": "dampers:NORMS_ROW"},
        "innerloop.verifiers": {"lenient": "dampers:lenient", "mentioned": "dampers:mentioned"},
    }
    return installed(tmp_path_factory.mktemp("site"), "dampers", GOOD, groups)


ONE_STEP = {
    "outer.steps": 1,
    "outer.clip": None,
    "outer.optimizer": {"name": "sgd", "lr": 0.5},
    "tasks.query": 2,
    "method.inner.steps": 2,
    "method.lora.r": 8,
}


def test_a_method_of_a_package_trains_adapts_and_is_listed(site: Path, world: World, tmp_path: Path) -> None:
    changes = {**ONE_STEP, "method.name": "damped-lora", "method.share": 0.25, "tasks.verifier": "lenient"}
    file, examples = config_file(world, tmp_path, changes=changes), write(tmp_path / "eve.jsonl", *SUPPORT)
    folder, adapter = tmp_path / "run", tmp_path / "adapter"
    listed, trained, adapted, *refused = innerloop(
        site,
        ["methods", "--json"],
        ["train", file],
        ["adapt", folder, examples, "--output", adapter],
        ["train", file, "--set", "method.share=2", "--set", f"output_dir={tmp_path / 'other'}"],
        ["train", file, "--set", "method.shore=1", "--set", f"output_dir={tmp_path / 'other'}"],
        ["train", file, "--set", "method.form=sign", "--set", f"output_dir={tmp_path / 'other'}"],
        ["train", file, "--set", "method.name=fomaml-lora", "--set", f"output_dir={tmp_path / 'other'}"],
    )
    rows = {row["method"]: row for row in json.loads(listed.out)}
    assert rows["damped-lora"] == {"method": "damped-lora", "algorithm": "damped first-order MAML", "trains": "LoRA"}
    assert list(rows)[-2:] == ["damped-lora", "fomaml-norms"]
    assert not listed.err
    assert (trained.code, adapted.code) == (0, 0), trained.err + adapted.err
    assert "wrong answers are taken for right" in trained.out + trained.err  # by this verifier all are
    assert (adapter / "adapter_model.safetensors").exists()

    assert manifest_of(folder)["host"]["environment"]["packages"]["dampers"] == "1.5"
    method = manifest_of(folder)["config"]["method"]
    assert (method["share"], method["form"]) == (0.25, "gradient")
    plain = small_run(world, "fomaml-lora", tmp_path / "plain", ONE_STEP)
    damped, whole = (load_file(path / "adapter" / "adapter_model.safetensors") for path in (folder, plain.folder))
    for name in (name for name in whole if "lora_B" in name):  # zero at the start
        assert torch.allclose(4 * damped[name], whole[name], rtol=1e-5, atol=0)
        assert whole[name].any()

    assert [each.code for each in refused] == [2] * 4
    limit, unknown, both, unread = (each.err for each in refused)
    assert "method.share" in limit
    assert "number above 0, at most 1" in limit
    assert 'did you mean "share"' in unknown
    assert "a sign has no share" in both
    assert '"fomaml-lora" does not read share' in unread
    assert "it is read by damped-lora" in unread


def test_a_kind_of_space_of_a_package_trains_and_adapts(site: Path, world: World, tmp_path: Path) -> None:
    file = config_file(world, tmp_path, "fomaml", {"method.name": "fomaml-norms", "outer.optimizer.lr": 0.1})
    folder, adapted = tmp_path / "run", tmp_path / "adapted"
    examples = write(tmp_path / "eve.jsonl", *SUPPORT)
    said = innerloop(site, ["train", file], ["adapt", folder, examples, "--output", adapted])
    assert [each.code for each in said] == [0, 0], said
    base, *others = (load_file(path / "model.safetensors") for path in (world.base, folder / "model", adapted))
    for before, after in pairwise([base, *others]):
        moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
        assert moved
        assert all("norm" in name for name in moved)


def test_a_comparison_knows_both(site: Path, world: World, tmp_path: Path) -> None:
    changes = {
        "arms": {"damped-lora": {"method": {"share": 0.25}}},
        "cost_only": ABSENT,
        "runs.every.tasks.verifier": "lenient",
        "runs.norms": {"memory": {"checkpointing": True}},
        "budgets": {"examples": 20},
        "evaluation": {"k": [0], "draws": 1, "forgetting_prompts": 0},
    }
    (said,) = innerloop(
        site, ["compare", matrix_file(world, tmp_path, changes), "--output", tmp_path / "out", "--json"]
    )
    assert said.code == 0, said.err
    (row,) = json.loads(said.out)["rows"]
    assert (row["arm"], row["algorithm"], row["trains"]) == ("damped-lora", "damped first-order MAML", "LoRA")
    (scores,) = (tmp_path / "out").glob("cells/damped-lora-*/scores/unseen-k0-*.json")
    tasks = json.loads(scores.read_text())["tasks"]
    assert {score for task in tasks.values() for score in task["correct"]} == {1.0}


BROKEN = {
    "gone": ("nowhere:ROW", "does not load: ModuleNotFoundError: No module named 'nowhere'", "can be imported"),
    "absent": ("bads:NOTHING", "does not load: AttributeError", "an object in it"),
    "number": ("bads:NUMBER", "not a row of METHODS", "Row(rule, kind of space, title)"),
    "fomaml": ("bads:ROW", "innerloop itself has one too", "another name"),
    "twice": ("bads:ROW", "package others 1.5: entry point innerloop.methods: twice = others:ROW has one", "another"),
}
BROKEN_VERIFIERS = {
    "gone": ("nowhere:check", "does not load: ModuleNotFoundError", "can be imported"),
    "three": ("bads:NUMBER", "not a verifier", "a function (example, generated text)"),
    "one": ("bads:one", "a verifier takes an example and a generated text", "a function (example, generated text)"),
    "number": ("bads:one", "innerloop itself has one too", "another name"),
}


def test_a_broken_one_is_an_error_of_who_asks_for_it(world: World, tmp_path: Path) -> None:
    groups = {"innerloop.methods": BROKEN, "innerloop.verifiers": BROKEN_VERIFIERS}
    points = {group: {name: value for name, (value, *_) in rows.items()} for group, rows in groups.items()}
    site = installed(tmp_path / "site", "bads", BAD, points)
    installed(site, "others", BAD, {"innerloop.methods": {"twice": "others:ROW"}})
    sound = config_file(world, tmp_path, "joint-lora", {"outer.steps": 1})
    asked = [("method.name", name, *row) for name, row in BROKEN.items()]
    asked += [("tasks.verifier", name, *row) for name, row in BROKEN_VERIFIERS.items()]
    faulty = [["check", sound, "--set", f"{key}={name}"] for key, name, *_ in asked]
    shown, listed, trained, *refused = innerloop(site, ["--help"], ["methods"], ["train", sound], *faulty)
    assert (shown.code, listed.code, trained.code) == (0, 0, 0), trained.err
    assert not shown.err
    assert "fomaml " in listed.out
    for (key, name, value, problem, right), said in zip(asked, refused, strict=True):
        assert said.code == 2, name
        group = "innerloop.methods" if key == "method.name" else "innerloop.verifiers"
        assert f"package bads 1.5: entry point {group}: {name} = {value}" in said.err
        for words in (problem, right):
            assert words in said.err, (name, said.err)
            assert key != "method.name" or words in listed.err


def test_without_the_package_its_method_is_unknown() -> None:
    (fault,) = faults_of(minimal("damped-lora"))
    assert "method.name" in fault
