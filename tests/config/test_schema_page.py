"""docs/config.md says what the schema says: every key, its default, and who reads it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from config_examples import minimal
from innerloop.config.document import Document
from innerloop.config.loading import KEYS, load_config
from innerloop.config.rules import unread
from innerloop.config.schema import DEFAULTS, FIELDS, get
from innerloop.errors import Faults, UserError
from innerloop.learning.methods import METHODS, Maml

PAGE = Path(__file__).parents[2] / "docs" / "config.md"
SOURCES = ({"tasks.suite": "hidden-rules"}, {"tasks.folder": "x"})
OTHERS = {
    "tasks.difficulty",
    "tasks.instances",
    "tasks.query",
    "method.keep_task_adapters",
    "memory.trunk_cache_gb",
    "outer.optimizer.betas",
    "outer.optimizer.eps",
}
OTHERS |= {f"method.inner.optimizer.{option}" for option in ("eps", "weight_decay", "loraplus_lr_ratio")}


def test_the_page_has_every_key_and_no_other() -> None:
    rows = _rows()
    assert [row[0] for row in rows] == list(KEYS)
    assert [(row[0], row[1]) for row in rows] == [(key, FIELDS[key].description) for key in KEYS]
    assert all(row[4] for row in rows)


def test_the_page_has_the_defaults() -> None:
    for key, _, default, _, _ in _rows():
        if key in DEFAULTS:
            assert _value(default) == json.loads(json.dumps(DEFAULTS[key])), key
    assert [row[0] for row in _rows() if row[2] == "required"] == ["model.name", "method.name", "output_dir"]
    upper, cached = {"name": "meta-lora", "lora": {"layers": "last-8"}}, {"trunk_cache": True}
    resolved = load_config(
        {**minimal(""), "tasks": {"suite": "hidden-rules"}, "method": upper, "memory": cached}
    ).resolved()
    for key, _, default, _, _ in _rows():
        if key in OTHERS:
            assert _value(default) == get(resolved, key), key


def test_the_page_says_who_reads_a_key() -> None:
    groups = {row[0]: _names(row[1]) for row in _table("| group |")}
    for key, _, _, readers, _ in _rows():
        assert groups[readers] == _readers(key), key


def test_the_page_has_the_inner_loops() -> None:
    for name, steps, clip, optimizer in _table("| method | steps |"):
        inner = load_config(minimal(name)).method.inner
        assert inner is not None
        assert (steps, clip) == (str(inner.steps), "null" if inner.clip is None else str(inner.clip))
        assert optimizer.startswith(f"{inner.optimizer.name}, lr {inner.optimizer.lr}")
        assert ("betas" in optimizer) == (inner.optimizer.name == "adamw")
    documented = [row[0] for row in _table("| method | steps |")]
    assert documented == [name for name, row in METHODS.items() if "inner" in row.rule.options()]


def test_the_pages_example_and_its_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good, bad = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    Path("run.yaml").write_text(good)
    load_config(Path("run.yaml"))
    Path("run.yaml").write_text(bad)
    (text,) = re.findall(r"```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
    with pytest.raises(UserError) as caught:
        load_config(Path("run.yaml"))
    assert str(caught.value) == text.strip()


def _value(cell: str) -> Any:
    document = Document()
    document.set(f"value={cell.strip('`')}", Faults())
    return document.tree["value"]


def _readers(key: str) -> list[str]:
    """The methods under which some values make the run read the key."""
    return [method for method in METHODS if any(_reads(method, source, key) for source in SOURCES)]


def _reads(method: str, source: dict[str, str], key: str) -> bool:
    inner = "sgd" if METHODS[method].rule is Maml else "adamw"
    optimizers = {"method.inner.optimizer.name": inner, "outer.optimizer.name": "adamw"}
    values = {"method.name": method, **optimizers, **source, "memory.trunk_cache": METHODS[method].space.reads_lora}
    values["method.inner.learned_rates"] = "tensor"
    values |= {"tasks.validation": ["a"], "evaluate.every": 1}
    gone = [objection.keys[0] for objection in unread(values)]
    return not any(f"{key}.".startswith(f"{other}.") for other in gone)


def _table(header: str) -> list[list[str]]:
    """The rows of the tables with this header, cells without back ticks around a lone name."""
    rows: list[list[str]] = []
    lines = PAGE.read_text().splitlines()
    for start in (index for index, line in enumerate(lines) if line.startswith(header)):
        for line in lines[start + 2 :]:
            if not line.startswith("|"):
                break
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            rows.append([cells[0].strip("` "), *cells[1:]])
    return rows


def _rows() -> list[list[str]]:
    return _table("| key |")


def _names(cell: str) -> list[str]:
    return re.findall(r"`([a-z-]+)`", cell)
