"""The verbs: what they print and write, and how each failure ends: a message and an exit code."""

import json
import resource
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import innerloop
from helpers import same
from innerloop.learning.methods import METHODS
from record_files import write
from small_runs import SUPPORT, Cli, Runs, World, config_file, files_of, manifest_of, tensors_of


def program(*argv: str | Path, flags: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, *flags, "-m", "innerloop", *map(str, argv)]


@pytest.fixture
def trained(runs: Runs) -> Path:
    """The folder of a finished run."""
    return runs("fomaml-lora").folder


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("new") / "eve.jsonl", *SUPPORT)


# --help


def test_help_answers_at_once_and_loads_nothing_heavy() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(program("--help", flags=("-X", "importtime")), capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    for verb in ("train", "check", "adapt", "export", "methods"):
        assert f"\n  {verb} " in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "innerloop.cli" in imported
    assert not imported & {"torch", "transformers", "peft", "numpy", "pydantic", "datasets"}
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_a_warning_of_ours_has_no_line_of_ours(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # is put back behind the test
    cli("--help")
    ours = Path(innerloop.__file__).parent / "engine" / "trainer.py"
    assert warnings.formatwarning("lost", RuntimeWarning, str(ours), 7) == "warning: lost\n"
    assert "RuntimeWarning: lost" in warnings.formatwarning("lost", RuntimeWarning, "theirs.py", 7)


def test_usage_errors_exit_with_2(cli: Cli) -> None:
    assert cli().code == 2
    assert "Missing argument" in cli("train").err
    assert "zork" in cli("train", "run.yaml", "--zork").err
    for argv in (["zork"], ["train"], ["train", "a.yaml", "--zork"], ["adapt", "run"]):
        assert cli(*argv).code == 2
    assert cli("--help").code == cli("train", "--help").code == 0


# train


def test_train_says_what_it_trains_and_writes_it(cli: Cli, world: World, tmp_path: Path) -> None:
    said = cli("train", config_file(world, tmp_path, "meta-lora"))
    assert said.code == 0
    assert said.out.startswith("method   meta-lora (two-stage META-LORA)\ntrains   28 tensors, ")
    wrote, then = said.out.splitlines()[-2:]
    assert wrote == f"wrote {tmp_path / 'run'}: adapter/, manifest.json, metrics.jsonl, run.yaml"
    assert then == f"next  innerloop report {tmp_path / 'run'}"
    assert manifest_of(tmp_path / "run")["status"] == "done"
    again = cli("train", tmp_path / "run.yaml")
    assert again.code == 2
    assert "error: output_dir: this folder is not empty" in again.err


def test_set_changes_a_key(cli: Cli, world: World, trained: Path, tmp_path: Path) -> None:
    config = config_file(world, tmp_path)
    assert cli("train", config, "--set", "outer.steps=1", "--set", "seed=8").code == 0
    said = manifest_of(tmp_path / "run")["config"]
    assert (said["outer"]["steps"], said["seed"]) == (1, 8)
    assert not same(tensors_of(tmp_path / "run"), tensors_of(trained))
    wrong = cli("check", config, "--set", "inner.steps=5")
    assert wrong.code == 2
    assert 'did you mean "method.inner"' in wrong.err


def test_a_run_of_over_a_minute_is_forecast_before_its_first_step(cli: Cli, world: World, tmp_path: Path) -> None:
    wild = {"method.inner.optimizer": {"name": "sgd", "lr": 1e30}, "method.inner.clip": 1e30}  # which ends it there
    config = config_file(world, tmp_path, changes=wild)
    sets = (("long", 10**8), ("short", 10))
    long, short = (
        cli("train", config, "--set", f"outer.steps={steps}", "--set", f"output_dir={tmp_path / name}")
        for name, steps in sets
    )
    assert (long.code, short.code) == (1, 1)
    assert "together" in long.out
    assert "steps each" not in long.out
    assert "together" not in short.out


def test_the_plan_stays_on_standard_output_beside_a_progress_bar(
    cli: Cli, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, a live bar would take the lines over, wrap them, and put them on standard error."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "40")
    said = cli("train", config_file(world, tmp_path))
    assert "\x1b[" in said.err, "a bar was drawn"
    assert "\x1b" not in said.out
    assert said.out.splitlines()[0] == "method   fomaml-lora (first-order MAML)"
    assert len(max(said.out.splitlines(), key=len)) > 40


def test_a_run_that_fails_exits_with_1(cli: Cli, world: World, tmp_path: Path) -> None:
    wild = {"method.inner.optimizer": {"name": "sgd", "lr": 1e30}, "method.inner.clip": 1e30}
    said = cli("train", config_file(world, tmp_path, changes=wild))
    assert said.code == 1
    assert "error: step 1: the loss of" in said.err
    assert "method.inner.optimizer.lr" in said.err
    assert manifest_of(tmp_path / "run")["status"] == "failed"


@pytest.mark.parametrize("place", ["typer.main.get_command", "innerloop.cli.running._train"])
def test_a_signal_ends_with_75_wherever_the_command_is(place: str) -> None:
    """While it is parsed, and in a verb; a second one, when the first was answered, changes nothing."""
    module, name = place.rsplit(".", 1)
    script = (
        "import os, signal, sys; from innerloop import cli\n"
        f"import {module}\n"
        "def stop(*_, **__): os.kill(os.getpid(), signal.SIGTERM)\n"
        f"{module}.{name} = stop\n"
        "sys.argv = ['innerloop', 'train', 'run.yaml']\n"
        "try: cli.main()\n"
        "finally: os.kill(os.getpid(), signal.SIGINT)\n"
    )
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert child.returncode == 75
    assert "error: stopped" in child.stderr
    assert "Traceback" not in child.stderr


# check


def test_check_tells_all_that_is_wrong_at_once(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text(
        "model: {name: m, dtyp: float32}\ntasks: {suite: math-science, support: '8', query: 0}\n"
        "method: {name: meta-lora, inner: {step: 3}}\nouter: {optimizer: {name: adam, lr: 1}}\n"
    )
    said = cli("check", config)
    assert (said.code, said.out) == (2, "")
    for place in (
        "bad.yaml: model.dtyp (line 1): unknown key",
        "bad.yaml: tasks.support (line 2): not a value",
        "bad.yaml: tasks.query (line 2): not a value",
        "bad.yaml: method.inner.step (line 3): unknown key",
        "bad.yaml: outer.optimizer.name (line 4): not a value",
        "output_dir: missing",
        "model.name: no config.json of this model on this machine",
    ):
        assert place in said.err
    assert said.err.count("expected:") == 7
    assert list(files_of(tmp_path)) == ["bad.yaml"]


def test_check_reads_the_data_too(cli: Cli, world: World, tmp_path: Path) -> None:
    config = config_file(world, tmp_path)
    assert cli("check", config).out.endswith("\nno faults\n")
    tasks = tmp_path / "tasks"
    shutil.copytree(world.tasks, tasks)
    write(tasks / "ada.jsonl", {"prompt": "p", "completion": None}, {"prompt": "", "completion": "c"})
    (tasks / "bob.jsonl").write_text("{")
    said = cli("check", config, "--set", f"tasks.folder={tasks}")
    assert said.code == 2
    for place in ("ada.jsonl:1: completion: is null", "ada.jsonl:2: prompt: is empty", "bob.jsonl:1: broken JSON"):
        assert place in said.err
    assert not (tmp_path / "run").exists()


def test_an_old_lora_option_under_fomaml_names_its_method_and_key(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "old.yaml"
    config.write_text(
        "model: {name: m, lora_rank: 8}\ntasks: {suite: math-science}\nmethod: {name: fomaml}\noutput_dir: run\n"
    )
    said = cli("check", config)
    assert said.code == 2
    assert "model.lora_rank (line 1)" in said.err
    assert "method.lora.r, with fomaml-lora as method.name" in said.err
    assert '"fomaml" trains all parameters' in said.err


def test_a_method_that_does_not_exist_is_answered_with_the_nearest(cli: Cli, world: World, tmp_path: Path) -> None:
    said = cli("train", config_file(world, tmp_path), "--set", "method.name=formal-lora")
    assert said.code == 2
    assert 'did you mean "fomaml-lora"?' in said.err


def test_missing_files_are_named(cli: Cli, trained: Path, tmp_path: Path) -> None:
    for argv in (
        ["train", tmp_path / "no.yaml"],
        ["check", tmp_path / "no.yaml"],
        ["adapt", tmp_path / "no.run", tmp_path / "no.jsonl"],
        ["adapt", trained, tmp_path / "no.jsonl"],
        ["export", tmp_path / "no.run"],
    ):
        said = cli(*argv)
        assert (said.code, said.out) == (2, "")
        assert str(tmp_path / "no.") in said.err


def test_the_program_exits_as_the_function_does(tmp_path: Path) -> None:
    done = subprocess.run(program("check", tmp_path / "no.yaml"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    config = tmp_path / "no.yaml"
    assert done.stderr == f"checking {config}\nerror: {config}: there is no such file\n"


# methods, and --json


def test_methods_lists_the_table(cli: Cli) -> None:
    lines = cli("methods").out.splitlines()
    assert [line.split()[0] for line in lines] == list(METHODS)
    rows = json.loads(cli("methods", "--json").out)
    assert {row["method"]: row["trains"] == "LoRA" for row in rows} == {
        name: row.space.reads_lora for name, row in METHODS.items()
    }


def test_every_json_is_one_document(cli: Cli, world: World, trained: Path, examples: Path, tmp_path: Path) -> None:
    config = config_file(world, tmp_path)
    for argv in (
        ["check", config],
        ["train", config],
        ["adapt", trained, examples],
        ["export", trained],
        ["methods"],
    ):
        said = cli(*argv, "--json")
        assert said.code == 0, said.err
        assert said.out.count("\n") == 1
        document = json.loads(said.out)
        if argv[0] in ("check", "train"):
            assert document["plan"]["method"] == "fomaml-lora"
            assert document["plan"]["trained"]["dtype"] == "float32"
