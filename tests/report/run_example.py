"""A run's folder made up for the tests of its page: no number was measured, and whoever named a task was no friend.

STEPS, TASK, WARNING  what is in it
run_folder            manifest.json, metrics.jsonl, run.yaml, and scores under eval/ if asked
step, evaluation      a line of metrics.jsonl each
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from report.conftest import small

STEPS, TASK, WARNING = 60, "<script>alert(1)</script>", "the verifier passes \x07 anything"


def step(number: int, **changes: Any) -> dict[str, Any]:
    loss = 1.0 + 2 * float(np.exp(-number / 15)) + 0.05 * (-1) ** number
    found = {"step": number, "loss": loss, "support_loss_first": loss + 1, "support_loss_last": loss - 0.25}
    about = {
        "gradient_norm": 1.0,
        "tokens": 100,
        "computed_tokens": 120,
        "skipped": [],
        "timing": {"seconds": 2 * number},
    }
    return {**found, **about, **changes}


def evaluation(number: int, nats: float, exact: float | None = None) -> dict[str, Any]:
    right = {} if exact is None else {"exact": exact}
    return {"step": number, "eval": {"nats": nats, **right, "tasks": {TASK: {"nats": nats + 0.1, **right}}}}


def manifest(**changes: Any) -> dict[str, Any]:
    plan = {
        "method": "meta-lora",
        "algorithm": "two-stage META-LORA",
        "inner": "3 steps on all 8 support examples, adamw",
    }
    plan |= {"trained": {"parameters": 325_632, "percent": 0.242, "tensors": 56, "model_parameters": 134_515_008}}
    plan |= {"tasks": 13, "tasks_per_step": 2, "steps": STEPS, "adapters": 1, "warnings": [WARNING]}
    phases = {"inner": {"base": 500 << 20, "activations": 84 << 20}}
    measured = {"inner": {"base": 500 << 20, "activations": 76 << 20}}
    host = {"environment": {"python": "3.11.2", "packages": {"torch": "2.13.0"}}, "peak_bytes": {"rss": 1 << 30}}
    return {
        **{"status": "done", "config": {"method": {"name": "meta-lora"}}, "model": {"name": "smollm2"}, "plan": plan},
        **{"roles": {"train": ["a", "b"], "validation": [TASK], "held_out": []}, "timing": {"seconds": 231.4}},
        **{"forecast": {"phases": phases, "seconds": 70.0}, "host": host | {"measured": {"phases": measured}}},
        **changes,
    }


def run_folder(folder: Path, lines: Sequence[Any] | None = None, *, with_eval: bool = False, **changes: Any) -> Path:
    """lines: of metrics.jsonl, dictionaries or texts; changes: of the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    given = [step(number) for number in range(1, STEPS + 1)] if lines is None else lines
    texts = [line if isinstance(line, str) else json.dumps(line) + "\n" for line in given]
    (folder / "manifest.json").write_text(json.dumps(manifest(**changes)))
    (folder / "metrics.jsonl").write_text("".join(texts))
    (folder / "run.yaml").write_text("seed: 7  # </script>\n")
    if with_eval:
        scores = small()
        for key in ("rows", "scores", "adaptation"):
            scores[key] = [entry for entry in scores[key] if entry["arm"] == "meta-lora"]
        for question in scores["questions"]:
            question["answers"] = [a for a in question["answers"] if a["arm"] == "meta-lora"]
        (folder / "eval" / "abc").mkdir(parents=True)
        (folder / "eval" / "abc" / "results.json").write_text(json.dumps(scores))
    return folder
