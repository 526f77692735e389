"""The first setting with which a run fits a memory budget; settings that cost the least speed are tried first.

parse_size  "24GB" -> bytes
Plan        the forecast that fits, or of the smallest need, and the keys that make it so
plan        config, device, budget -> Plan
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from innerloop.config.document import to_yaml
from innerloop.config.loading import RunConfig, load_config
from innerloop.config.rules import lora_sibling
from innerloop.config.schema import nested
from innerloop.engine.dtypes import with_dtype
from innerloop.engine.groundwork import Groundwork
from innerloop.errors import Fault, UserError
from innerloop.planning.devices import Device
from innerloop.planning.forecast import Forecast, bytes_in_words, duration, forecast
from innerloop.planning.workload import Workload, workload_of

FEW_ROWS = 256  # of logits at a time: below, products with the head get slow and save next to nothing

_UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}

Keys = Mapping[str, Any]


def parse_size(text: str) -> int:
    """Bytes of a number with its unit: GB are 10^9 bytes, GiB 2^30. Raises UserError for anything else."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]i?B)", text.strip(), re.IGNORECASE | re.ASCII)
    size = float(match[1]) * _UNITS[match[2].upper()] if match else 0.0
    if not 0 < size < 2**63:
        raise UserError(Fault("not a size", "--budget", text, "a number with its unit, such as 24GB or 24GiB"))
    return int(size)


@dataclass(frozen=True, repr=False)
class Plan:
    """forecast: of the run with `keys` set; limit: bytes, of `limited_by`; fits: whether it needs no more;
    tried: what was set and the bytes that it needs, in order. Printed, it is what `innerloop plan` prints.

    tasks            to train on
    tokens, seconds  in all; no seconds where no rate of the device is known
    bytes            at the peak
    trained          parameters
    """

    forecast: Forecast
    keys: Keys
    limit: int
    limited_by: str
    fits: bool
    tried: tuple[tuple[Keys, int], ...]

    def __repr__(self) -> str:
        time = duration(self.seconds) if self.seconds else "time unknown"
        share = f"{100 * self.trained / self.forecast.workload.parameters:.2f} %"
        return (
            f"Plan({'fits' if self.fits else 'does not fit'}: {self.tasks} training tasks, {self.tokens:,} tokens, "
            f"{bytes_in_words(self.bytes)}, {time}; trains {self.trained:,} parameters, {share} of the model's)"
        )

    def __str__(self) -> str:
        return "\n".join(self.lines())

    @property
    def tasks(self) -> int:
        return len(self.forecast.workload.session.train)

    @property
    def tokens(self) -> int:
        work = self.forecast.workload
        return round(work.tokens_per_step * self.forecast.config.outer.steps * work.adapters)

    @property
    def bytes(self) -> int:
        return self.forecast.peak

    @property
    def seconds(self) -> float | None:
        return self.forecast.total_seconds

    @property
    def trained(self) -> int:
        return self.forecast.workload.trained

    def facts(self) -> dict[str, Any]:
        """For programs."""
        return {
            "fits": self.fits,
            "limit_bytes": self.limit,
            "limited_by": self.limited_by,
            "set": dict(self.keys),
            "tried": [{"set": dict(keys), "peak_bytes": peak} for keys, peak in self.tried],
            **self.forecast.facts(),
        }

    def lines(self) -> list[str]:
        """For people: the answer first."""
        return [*self._verdict(), "", *self.forecast.lines()]

    def _verdict(self) -> list[str]:
        limit = f"{bytes_in_words(self.limit)} ({self.limited_by})"
        if self.fits and not self.keys:
            return [f"fits in {limit} as configured"]
        found = [f"    {as_arguments(self.keys)}", "", *(f"    {line}" for line in as_yaml(self.keys))]
        tried = [f"{bytes_in_words(self.tried[0][1]):>12}  as configured"]
        for (before, _), (keys, peak) in pairwise(self.tried):
            added = {key: value for key, value in keys.items() if before.get(key) != value}
            tried.append(f"{bytes_in_words(peak):>12}  and {as_arguments(added)}")
        config, least = self.forecast.config, bytes_in_words(self.forecast.peak)
        if self.fits:
            said = f"does not fit in {limit} as configured; {least} are enough with"
            return [said, *found, "", "tried", *tried]
        if not self.keys:
            return [f"does not fit in {limit}, and no setting saves more: it needs {least}", *_ways_out(config)]
        said = f"does not fit in {limit} with any setting; the smallest need is {least}, with"
        return [said, *found, "", "tried", *tried, *_ways_out(config)]


def plan(config: RunConfig, device: Device, *, budget: int | None = None, ground: Groundwork | None = None) -> Plan:
    """What the run will take; where that is more than the budget or the device has, the first setting that fits.

    ground: what is known of the run, where that was looked at before.
    Raises UserError for a limit below the model's weights, before anything is traced, and as `workload_of` does.
    """
    config = with_dtype(config, device.kind)
    work = workload_of(config, kind=device.kind, ground=ground)
    config = work.session.config
    limit, limited_by = device.memory, device.title
    if budget is not None and budget <= limit:
        limit, limited_by = budget, "--budget"
    _refuse_less_than_the_weights(work, limit, limited_by)
    tried: list[tuple[Keys, int]] = []
    smallest: tuple[Forecast, Keys] | None = None
    for keys, changed in _settings(config, work, device):
        found = forecast(work, device, config=changed)
        tried.append((keys, found.peak))
        if smallest is None or found.peak < smallest[0].peak:
            smallest = found, keys
        if found.peak <= limit:
            return Plan(found, keys, limit, limited_by, fits=True, tried=tuple(tried))
    assert smallest is not None
    return Plan(*smallest, limit, limited_by, fits=False, tried=tuple(tried))


def as_arguments(keys: Keys) -> str:
    """--set arguments of the command line."""
    return " ".join(f"--set {key}={str(value).lower()}" for key, value in keys.items())


def as_yaml(keys: Keys) -> list[str]:
    """Lines of a run's config."""
    return to_yaml(nested(keys)).splitlines()


def _settings(config: RunConfig, work: Workload, device: Device) -> Iterator[tuple[Keys, RunConfig]]:
    """The config's own, then one saving after another on top; what the rules of a config refuse is left out."""
    yield {}, config
    keys: dict[str, Any] = {}
    for saving in _savings(config, work, device):
        more = {**keys, **saving}
        try:
            changed = load_config(config.resolved(), [f"{key}={str(value).lower()}" for key, value in more.items()])
        except UserError:
            continue
        keys = more
        yield keys, changed


def _savings(config: RunConfig, work: Workload, device: Device) -> Iterator[Keys]:
    memory = config.memory
    tasks = min(work.tasks_per_forward(config, kind=device.kind), config.outer.tasks_in_step)
    while tasks > 1:
        tasks //= 2
        yield {"memory.tasks_per_forward": tasks}
    if not memory.checkpointing:
        yield {"memory.checkpointing": True}
    if memory.logit_rows > FEW_ROWS:
        yield {"memory.logit_rows": FEW_ROWS}
    if not memory.lean:
        yield {"memory.lean": True}
    if not memory.offload and device.kind != "cpu":
        yield {"memory.offload": True}


def _refuse_less_than_the_weights(work: Workload, limit: int, limited_by: str) -> None:
    if limit >= work.base_bytes:
        return
    model = work.session.config.model
    half = "model.dtype: bfloat16, which takes half; or " if model.dtype == "float32" else ""
    size = f"{bytes_in_words(work.base_bytes)}, {work.parameters:,} parameters in {model.dtype}"
    where = limited_by if limited_by.startswith("--") else f"memory of {limited_by}"
    raise UserError(
        Fault(
            f"less than the weights of {model.name} alone",
            where,
            bytes_in_words(limit),
            f"more than {size}; {half}a smaller model",
        )
    )


def _ways_out(config: RunConfig) -> list[str]:
    """What a config's memory section can't do."""
    ways = ["shorter examples (tasks.max_length)", "fewer of them a pass (method.inner.batch_size, tasks.query)"]
    if config.model.dtype == "float32":
        ways.insert(0, "model.dtype: bfloat16")
    if config.method.lora is None:
        ways.append(f"LoRA (method.name: {lora_sibling(config.method.name)})")
    return ["less takes " + ", ".join([*ways, "or a smaller model"])]
