"""What a run writes about itself: manifest.json (what it is) and metrics.jsonl (what was measured, line by line).

Journal       one run's two files
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from innerloop.config.output_dir import METRICS, read_lines
from innerloop.files import MANIFEST, write_text


class Journal:
    """Opens a run's folder, which exists; the caller holds its lock.

    Two equal runs have equal manifests and metrics, those parts aside that say `host` or `timing`.

    metrics: the lines of what is behind; steps: how many of them are of outer steps.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], *, metrics: str = "") -> None:
        self.folder, self.metrics = folder, metrics
        self.steps = len(read_lines(metrics).steps)
        self._manifest: dict[str, Any] = {"status": "running", **manifest}
        self._write_manifest()
        write_text(folder / METRICS, metrics)
        self._file = (folder / METRICS).open("a", encoding="utf-8")

    def record(self, **values: Any) -> None:
        """One line of metrics.jsonl: of a step, or with `eval` of an evaluation."""
        line = json.dumps(values) + "\n"
        self.steps += "eval" not in values
        self.metrics += line
        self._file.write(line)
        self._file.flush()

    def finish(self, status: str, **values: Any) -> None:
        """The last word, with what was measured; sections that are there already get more entries."""
        self._file.close()
        write_text(self.folder / METRICS, self.metrics)
        for key, value in values.items():
            known = self._manifest.get(key)
            self._manifest[key] = known | value if isinstance(known, dict) and isinstance(value, dict) else value
        self._manifest["status"] = status
        self._write_manifest()

    def _write_manifest(self) -> None:
        write_text(self.folder / MANIFEST, json.dumps(self._manifest, indent=2) + "\n")
