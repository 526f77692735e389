"""The devices that a plan can be made for: their memory, and how fast they are.

Device     memory in bytes, and the peak of each dtype from the vendor's data sheet, dense
Rate       floating-point operations per second that a run can count on, and how that is known
DEVICES    the GPUs that --device names; "cpu" is this machine's
chosen     the device of --device, else the one that the run would take on this machine
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from innerloop.errors import Fault, UserError, did_you_mean
from innerloop.machine import chosen_device

ASSUMED_SHARE = 0.4  # of the vendor's peak, where nothing was measured
# Bytes that the caching allocator reserves beyond what is allocated, as a share of it. Assumed, not measured.
ALLOCATOR_SLACK = 0.06


class Rate(NamedTuple):
    """flops: a second; source: in words."""

    flops: float
    source: str
    assumed: bool


@dataclass(frozen=True)
class Device:
    """kind: "cpu" or "cuda"; memory: bytes; chip: what its driver's name has in it; peaks: dtype -> FLOP/s, dense;
    measured: dtype -> what a benchmark found."""

    title: str
    kind: str
    memory: int
    chip: str = ""
    peaks: Mapping[str, float] = field(default_factory=dict[str, float])
    measured: Mapping[str, Rate] = field(default_factory=dict[str, Rate])

    @property
    def slack(self) -> float:
        """Of what is allocated: what the allocator holds beside it."""
        return ALLOCATOR_SLACK if self.kind == "cuda" else 0.0

    def rate(self, dtype: str) -> Rate | None:
        """Measured, else a share of the peak; None where neither is known."""
        if dtype in self.measured:
            return self.measured[dtype]
        if dtype not in self.peaks:
            return None
        peak = self.peaks[dtype]
        source = f"{ASSUMED_SHARE:.0%} of the vendor's {peak / 1e12:g} TFLOP/s in {dtype}"
        return Rate(ASSUMED_SHARE * peak, source, assumed=True)


def _half(tensor_cores: float, float32: float) -> dict[str, float]:
    """The tensor cores' peak in both half precisions. float32 does without them: innerloop leaves TF32 off."""
    return {"bfloat16": tensor_cores, "float16": tensor_cores, "float32": float32}


# Data sheets: NVIDIA H200 SXM, A100 SXM; for the RTX 4090 the Ada architecture white paper, float32 accumulation.
DEVICES = {
    "h200": Device("NVIDIA H200", "cuda", 141_000_000_000, "H200", _half(989e12, 67e12)),
    "a100-80": Device("NVIDIA A100 80 GB", "cuda", 80_000_000_000, "A100", _half(312e12, 19.5e12)),
    "a100-40": Device("NVIDIA A100 40 GB", "cuda", 40_000_000_000, "A100", _half(312e12, 19.5e12)),
    "rtx4090": Device("NVIDIA RTX 4090", "cuda", 24_000_000_000, "4090", _half(165.2e12, 82.6e12)),
}
KNOWN = (*DEVICES, "cpu")

# The row "2 tasks a forward" of benchmarks/results/step.json: 269.2 tokens/s of 489 MFLOP each.
CPU_FLOAT32 = Rate(1.316e11, "measured on 2 cores of an AMD EPYC (benchmarks/results/step.json)", assumed=False)


def chosen(name: str | None, *, model_device: str) -> Device:
    """The device called `name`; without one, where a config with this `model.device` runs on this machine.

    Raises UserError for a name that is not known, and where `model.device` asks for a GPU that is not here.
    """
    if name is None:
        if model_device.startswith("cuda") and not torch.cuda.is_available():
            right = f"--device with one of: {', '.join(DEVICES)}"
            raise UserError(Fault("no CUDA device is here to plan for", "model.device", model_device, right))
        place = torch.device(chosen_device(model_device))
        if place.type == "cuda":
            found = torch.cuda.get_device_properties(place)
            return gpu(found.name, memory=found.total_memory)
        return cpu()
    if name not in KNOWN:
        raise UserError(Fault("unknown device", "--device", name, did_you_mean(name, KNOWN)))
    return cpu() if name == "cpu" else DEVICES[name]


def cpu() -> Device:
    """This machine's processor and all of its memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device("this machine's CPU", "cpu", memory, measured={"float32": CPU_FLOAT32})


def gpu(title: str, *, memory: int) -> Device:
    """A GPU by the name that its driver gives it; of one that isn't in the table no rate is known."""
    same = (device for device in DEVICES.values() if device.chip in title)
    known = next(same, Device(title, "cuda", memory))
    return replace(known, title=title, memory=memory)
