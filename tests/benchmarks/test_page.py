"""benchmarks/page.py: every section says its result, or that there is none yet."""

import json
from pathlib import Path
from typing import Any

import page
from record import header


def test_without_results_nothing_is_measured(tmp_path: Path) -> None:
    text = page.page(tmp_path)
    assert text.lower().count("not yet measured") >= len(page.SECTIONS)
    assert all(f"## {section.title}\n" in text and section.command in text for section in page.SECTIONS)


def test_a_plan_is_within_where_it_is_near_what_was_taken(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"config": "LlamaConfig", "planned": 1000e6, "allocated": 1100e6},
        {"config": "LlamaConfig", "planned": 3000e6, "allocated": 2000e6},
        {"config": "Qwen2Config", "planned": 60e6, "measured": 120e6},
    ]
    assert page.plan_table({"rows": rows})[2:] == [
        "| Llama | 2 | 1 | -9.1 % | +50.0 % |",
        "| Qwen2 | 1 | 1 | -50.0 % | -50.0 % |",
    ]
    (tmp_path / "plan-cuda.json").write_text(json.dumps(header() | {"rows": rows}))
    section = page.page(tmp_path).split("## Plans on a GPU")[1]
    assert "| Llama | 2 | 1 |" in section
    assert "commit `" in section


def test_memory_is_shown_beside_its_aim() -> None:
    ran = {"outer_steps": 2, "commit": "abc"}
    rows = {"a": {"peak_rss": 2e9, "used": 1e9} | ran, "b": {"peak_rss": 4e9, "used": 3e9} | ran}
    ratios = [{"case": "a", "beside": "b", "peak_rss": 0.5, "target": 0.55}]
    table = page.memory_table({"rows": rows, "ratios": ratios})
    assert "| a | 2.00 | 1.00 | 2 | `abc` |" in table
    assert "| a | b | 0.50 | at most 0.55 |" in table


def test_rows_that_were_measured_apart_each_say_their_commit(tmp_path: Path) -> None:
    old, new = (header() | {"date": f"2026-11-{day}", "commit": name} for day, name in (("20", "abc"), ("21", "def")))
    data = {"histogram": {}, "useful_padded": 0.5, "useful_ours": 1.0}
    rows = {
        name: {"environment": environment, "data": data, "contenders": {}}
        for name, environment in (("mixed lengths", new), ("equal lengths", old), ("trunk, last-8", new))
    }
    (tmp_path / "race.json").write_text(json.dumps({"rows": rows}))
    section = page.page(tmp_path).split("## Useful tokens")[0]
    assert "2026-11-20 to 2026-11-21, " in section
    assert "commits `def`, `abc`: [race.json]" in section
    assert section.count("torch ") == 1
