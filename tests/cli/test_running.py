"""`innerloop plan`: answers before any weights, in little memory; errors say what to do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from innerloop.config.document import to_yaml
from small_runs import Cli, World, config_file, files_of

LLAMA = {
    "model": {"name": "meta-llama/Llama-3.2-1B", "dtype": "bfloat16"},
    "tasks": {"suite": "hidden-rules"},
    "method": {"name": "fomaml-lora", "lora": {"r": 16}},
    "memory": {"tasks_per_forward": 1, "checkpointing": True},
    "output_dir": "runs/llama",
}

# Prints, after the plan, which of some packages were imported and the peak of the resident set in bytes.
WATCHED = """
import sys
from innerloop.cli import main
try:
    main()
finally:
    print([name for name in ("peft", "transformers") if name in sys.modules])
    from innerloop.machine import peak_memory  # its own: getrusage's is no less than this test process's
    print(peak_memory()["rss"])
"""


def test_llama_is_planned_without_weights_network_peft_or_much_memory(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(to_yaml(LLAMA))
    command = [sys.executable, "-c", WATCHED, "plan", str(tmp_path / "run.yaml"), "--device", "h200", "--json"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    facts, imported, resident = json.loads(said[0]), said[1], int(said[2])
    assert imported == "['transformers']"
    assert resident < 1.5e9
    assert facts["model"]["parameters"] == 1_235_814_400
    assert facts["model"]["trained"] == 11_272_192  # r=16 on all seven projections of 16 layers
    assert facts["tokens_from"] == "tasks.max_length"
    assert facts["tokens_per_step"] == 4 * (3 + 1) * 8 * 512
    assert facts["phases"]["outer"]["base"] == pytest.approx(2 * 1_235_814_400, rel=0.001)
    assert 2.5e9 < facts["peak_bytes"] < 5e9
    # A frozen base, checkpointed: 6 operations a parameter and token, and its head on scored rows.
    assert facts["flops_per_step"] / facts["tokens_per_step"] == pytest.approx(6 * 1.236e9, rel=0.1)
    assert facts["fits"] is True
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_a_plan_is_for_people_and_for_programs(cli: Cli, world: World, tmp_path: Path) -> None:
    config = config_file(world, tmp_path)
    text = cli("plan", config)
    assert text.code == 0
    assert text.out.startswith("fits in ")
    assert "\ntokens   " in text.out
    facts = json.loads(cli("plan", config, "--json", "--set", "outer.steps=9").out)
    assert (facts["fits"], facts["steps"], facts["set"]) == (True, 9, {})
    assert list(files_of(tmp_path)) == ["run.yaml"]


def test_a_budget_gives_the_keys_to_set(cli: Cli, world: World, tmp_path: Path) -> None:
    config = config_file(world, tmp_path, changes={"memory.tasks_per_forward": 2, "method.inner.steps": 1})
    plan = ("plan", config, "--device", "h200", "--json")
    peak = json.loads(cli(*plan).out)["peak_bytes"]
    found = cli(*plan, "--budget", f"{(peak - 1) / 1e6:.6f}MB")
    assert (found.code, json.loads(found.out)["set"]) == (0, {"memory.tasks_per_forward": 1})
    none = cli(*plan[:-1], "--budget", "0.09MB")
    assert none.code == 3
    assert "with any setting; the smallest need is" in none.out


def test_errors_say_what_to_do(cli: Cli, world: World, tmp_path: Path) -> None:
    config = config_file(world, tmp_path)
    for argv, said in (
        (
            ("--device", "h100"),
            "error: --device: unknown device\n    value:    'h100'\n    expected: did you mean \"h200\"?",
        ),
        (("--budget", "24"), "such as 24GB or 24GiB"),
        (("--budget", "10KB"), "error: --budget: less than the weights of"),
        (("--set", "model.name=/no/such/folder"), "a folder with the model's config.json, or a known model"),
        (("--set", "inner.steps=5"), 'did you mean "method.inner"'),
        (("--gpus", "0"), "Invalid value for '--gpus'"),
    ):
        found = cli("plan", config, *argv)
        assert (found.code, found.out) == (2, "")
        assert said in found.err
