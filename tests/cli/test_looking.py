"""The verbs that look and change nothing."""

import json
import re
from pathlib import Path

from small_runs import Cli, Runs, World, config_file, files_of


def test_runs_are_listed_shown_and_compared(cli: Cli, runs: Runs) -> None:
    folder, other = runs("fomaml-lora").folder, runs("meta-lora").folder
    before = files_of(folder)
    said = cli("runs", "ls", folder.parent)
    assert said.code == 0
    assert str(folder) in said.out
    shown = cli("runs", "show", folder)
    assert "method:\n  name: fomaml-lora" in shown.out
    facts = json.loads(cli("runs", "show", folder, "--json").out)
    assert facts["config"]["method"]["name"] == facts["method"] == "fomaml-lora"
    assert facts["ended"] == {"validation": None, "stopped_after": None, "stopped_by": None}
    differ = json.loads(cli("runs", "diff", folder, other, "--json").out)
    assert differ["method.name"] == {"one": "fomaml-lora", "other": "meta-lora"}
    assert "seed" not in differ
    assert shown.out.startswith("fomaml-lora, Finished, 2 of 2 steps, ")
    assert "fomaml-lora (first-order MAML) trains " in " ".join(shown.out.split())
    assert cli("runs", "diff", folder, folder).out.startswith("the same settings\n\nrun ")
    between = cli("runs", "diff", folder, runs("joint-lora").folder).out
    assert re.search(r"^method\.inner\.steps +2 -> not read$", between, re.MULTILINE)
    assert len(between.partition("\n\n")[2].splitlines()) == 3, "a heading and both runs"
    assert files_of(folder) == before


def test_what_is_no_run_ends_with_2(cli: Cli, tmp_path: Path) -> None:
    assert cli("runs", "ls", tmp_path).out.startswith("no runs below")
    for verb in (["ls", tmp_path / "gone"], ["show", tmp_path], ["diff", tmp_path, tmp_path]):
        said = cli("runs", *verb)
        assert said.code == 2
        assert said.err.startswith("error: ")


def test_recipes_are_listed_and_copied(cli: Cli, tmp_path: Path) -> None:
    names = [line.split()[0] for line in cli("recipes", "ls").out.splitlines()]
    assert "own-tasks" in names
    assert cli("recipes", "cp", "own-tasks", tmp_path).code == 0
    assert cli("recipes", "cp", "own-tasks", tmp_path).code == 2
    assert cli("recipes", "cp", "zork", tmp_path).code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["own-tasks.yaml"]


def test_a_preview_is_the_text_that_the_model_reads(cli: Cli, world: World, tmp_path: Path) -> None:
    path = config_file(world, tmp_path)
    found = json.loads(cli("preview", path, "--tasks", "2", "--show", "3", "--json").out)
    assert [each["where"].split()[2] for each in found] == ["ada"] * 3 + ["bob"] * 3
    assert all(each["prompt"].startswith("ada ") and each["answer"].strip() for each in found[:3])
    assert cli("preview", path).out.startswith("example of task ada")
    assert not (tmp_path / "run").exists()


def test_the_environment_says_versions_and_what_extras_lack(cli: Cli) -> None:
    facts = json.loads(cli("env", "--json").out)
    assert facts["packages"]["torch"]
    assert set(facts["extras"]) >= {"demo", "score", "report"}
    assert "torch " in cli("env").out


def test_the_schema_knows_every_key_and_demands_only_what_has_no_default(cli: Cli) -> None:
    schema = json.loads(cli("schema").out)
    assert schema["required"] == ["model", "tasks", "method", "output_dir"]
    method = schema["$defs"]["MethodSection"]
    assert method["required"] == ["name"]
    assert method["additionalProperties"] is False
    assert "required" not in schema["$defs"]["OuterSection"]
