"""What every benchmark's result carries: date, hardware, versions, commit, model."""

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from innerloop.files import write_text
from innerloop.loading.models import LoadedModel
from innerloop.machine import commit, environment


def header(model: LoadedModel | None = None) -> dict[str, Any]:
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
    }
    named = {"model": {"name": model.name, "fingerprint": model.fingerprint}} if model else {}
    return {**found, **environment(), **named}


def write_result(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(result, indent=2) + "\n")
    print(f"wrote {path}")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
