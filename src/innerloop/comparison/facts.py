"""How a cell was trained and what it cost, from the files of its run.

run_facts        the run folder -> the fields of result.json
untrained_facts  the same of an arm that trains nothing
"""

import json
from itertools import accumulate
from pathlib import Path
from typing import Any

from innerloop.comparison.matrix import IN_CONTEXT
from innerloop.config.loading import load_config
from innerloop.config.output_dir import METRICS, read_lines
from innerloop.files import MANIFEST
from innerloop.results.cell_files import Spent, Training


def run_facts(output: Path) -> dict[str, Any]:
    said = json.loads((output / MANIFEST).read_text())
    lines = read_lines((output / METRICS).read_text()).steps
    config, plan, seconds = load_config(said["config"]), said["plan"], said["timing"]["seconds"]
    row = config.method.row
    folder = output / ("adapters" if row.one_task else row.space.exported)
    return {
        "algorithm": plan["algorithm"],
        "trains": row.space.title,
        "parameters": plan["trained"]["parameters"],
        "percent": plan["trained"]["percent"],
        "examples_per_task": plan["examples_per_task"],
        "tasks": plan["tasks"],
        "passes": sum(line["passes"] for line in lines),
        "steps": plan["steps"],
        "tokens": said["tokens"],
        "seconds": seconds,
        "tokens_per_second": said["tokens"] / seconds,
        "peak_bytes": said["host"]["peak_bytes"],
        "file_bytes": sum(path.stat().st_size for path in folder.rglob("*.safetensors")),
        "config_yaml": (output / "run.yaml").read_text(),
        "command": "innerloop train run.yaml",
        "training": {
            "tokens": list(accumulate(line["tokens"] for line in lines)),
            "seconds": [line["timing"]["seconds"] for line in lines],
            "loss": [line["loss"] for line in lines],
            "support_first": [line["support_loss_first"] for line in lines],
            "support_last": [line["support_loss_last"] for line in lines],
        },
    }


def untrained_facts(arm: str) -> dict[str, Any]:
    """It takes nothing, where it has the number at all."""
    absent = {"tokens_per_second": None, "peak_bytes": {}, "config_yaml": "", "command": "", "trains": "nothing"}
    counts = Spent.model_fields.keys() - absent.keys() - {"algorithm"}
    return {
        "algorithm": "k examples in the prompt" if arm == IN_CONTEXT else "the model as it is",
        **dict.fromkeys(sorted(counts), 0),
        **absent,
        "training": {name: [] for name in Training.model_fields},
    }
