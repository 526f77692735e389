"""`model.dtype: auto`: what the processor multiplies fastest, by what it says it can do, never by a timing.

multiplies_bfloat16   whether it does that several times as fast as float32
with_dtype, of_dtype  a config whose dtype is a name, whatever it was
faster                in words, where another dtype than the config's is much faster; else None
"""

import torch

from innerloop.config.loading import RunConfig

AUTO, EXACT = "auto", "float32"


def multiplies_bfloat16(kind: str) -> bool:
    """On a device of this kind, "cpu" or "cuda": AMX on this machine's processor; on a GPU, tensor cores.

    A GPU that isn't here is taken to have them. Without AMX, AVX-512's bfloat16 gains too little to round for.
    """
    if kind == "cuda":
        return not torch.cuda.is_available() or torch.cuda.get_device_capability() >= (8, 0)
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def with_dtype(config: RunConfig, kind: str) -> RunConfig:
    """Values, moments and losses are float32 either way: what is chosen is the dtype of the model's forward."""
    return of_dtype(config, torch.bfloat16 if multiplies_bfloat16(kind) else torch.float32)


def of_dtype(config: RunConfig, dtype: torch.dtype) -> RunConfig:
    """The config with this in the place of `auto`."""
    if config.model.dtype != AUTO:
        return config
    name = str(dtype).removeprefix("torch.")
    return config.model_copy(update={"model": config.model.model_copy(update={"dtype": name})})


def faster(dtype: str, kind: str) -> str | None:
    """dtype: the config's, by name."""
    if dtype != EXACT or not multiplies_bfloat16(kind):
        return None
    what = "this processor has AMX, which multiplies" if kind == "cpu" else "tensor cores multiply"
    return f"model.dtype: bfloat16, or auto: {what} it several times as fast; trained values stay float32"
