"""What a run writes about itself: manifest.json (what it is) and metrics.jsonl (what was measured, line by line).

Journal        one run's two files
read_metrics   the lines of metrics.jsonl
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from innerloop.config.output_dir import METRICS, read_lines
from innerloop.errors import Fault, UserError
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


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Raises UserError where there is no such file, and with the first line that is none."""
    path = folder / METRICS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(Fault(f"can't be read: {error}", str(path), expected="as the run wrote it")) from error
    found = list[dict[str, Any]]()
    for number, line in enumerate(lines, 1):
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise UserError(Fault("not a line of measurements", f"{path}:{number}", line[:80], "a JSON object"))
        found.append(said)
    return found
