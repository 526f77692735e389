"""The page on Python runs as it stands, on a small model and small data."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel

from innerloop import load_run
from small_runs import World

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
TASKS = ("ada", "bob", "cyd", "dee", "eve", "fay")


def test_the_pages_code_runs(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    rows = [
        {"prompt": f"{task} {'+' * (n % 4)}{n}:", "completion": f" {task[n % 3]}", "task": task}
        for task in TASKS
        for n in range(16)
    ]
    monkeypatch.chdir(tmp_path)
    Path("tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    smaller = code.replace("smollm2-135m-q4_1", str(world.base)).replace("max_steps=60", "max_steps=2")
    smaller = smaller.replace("eval_steps=20", "eval_steps=1")
    assert smaller.count(str(world.base)) == smaller.count("max_steps=2") == smaller.count("eval_steps=1") == 1
    said = dict[str, Any]()
    for _ in range(2):  # a script that runs twice trains once
        exec(compile(smaller, str(PAGE), "exec"), said)
        assert json.loads(Path("runs/tickets/manifest.json").read_text())["status"] == "done"
        assert Path("adapters/acme/adapter_model.safetensors").exists()
        assert isinstance(said["model"], PeftModel)
        assert repr(load_run("runs/tickets")) == repr(said["learned"])
    assert capsys.readouterr().err.count("training  2/2") == 1
