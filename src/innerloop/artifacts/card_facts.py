"""What a run's folder knows of it beyond its config, for its model card: data, cost and scores, as they were measured.

CardFacts    tasks and examples by role, cost, environment, the results of the last `innerloop eval`
card_facts   a folder -> CardFacts; what isn't there is None or empty
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from innerloop.config.output_dir import read_manifest
from innerloop.results.schema import RESULTS, Results

ROLES = ("train", "validation", "held_out")


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """A run that is still under way has no cost yet.

    tasks          role -> how many tasks; examples: how many they have together, pool and test
    data_digest    of all examples, in words that equal data has equal
    seconds, peak_bytes, packages   of training, on the machine that it ended on
    """

    tasks: Mapping[str, int] = field(default_factory=dict[str, int])
    examples: Mapping[str, int] = field(default_factory=dict[str, int])
    data_digest: str = ""
    tokens: int | None = None
    seconds: float | None = None
    peak_bytes: Mapping[str, int] = field(default_factory=dict[str, int])
    packages: Mapping[str, str] = field(default_factory=dict[str, str])
    results: Results | None = None


def card_facts(folder: Path) -> CardFacts:
    """Raises UserError for a manifest or results that can't be read."""
    manifest = read_manifest(folder)
    if manifest is None:
        return CardFacts()
    roles, counts = manifest.get("roles", {}), manifest.get("examples", {})
    names = {role: roles.get(role, []) for role in ROLES}
    data = manifest.get("inputs", {}).get("data", {})
    host = manifest.get("host", {})
    return CardFacts(
        tasks={role: len(found) for role, found in names.items()},
        examples={role: sum(sum(counts[name].values()) for name in found) for role, found in names.items() if counts},
        data_digest=hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16] if data else "",
        tokens=manifest.get("tokens"),
        seconds=manifest.get("timing", {}).get("seconds"),
        peak_bytes=host.get("peak_bytes", {}),
        packages=host.get("environment", {}).get("packages", {}),
        results=_last_results(folder),
    )


def _last_results(folder: Path) -> Results | None:
    """Of the evaluation that began last; of those of one day, the one with the most draws."""
    found = [Results.read(path) for path in sorted(folder.glob(f"eval/*/{RESULTS}"))]
    whole = [results for results in found if results.status == "done" and results.scores]
    return max(whole, key=lambda each: (each.started, each.protocol.draws, len(each.protocol.k)), default=None)
