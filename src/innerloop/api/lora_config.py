"""PEFT's LoraConfig, as it is, and the config keys that it sets.

LoraConfig   PEFT's own
lora_keys    LoraConfig -> dotted config keys
"""

from typing import Any

from peft import LoraConfig

from innerloop.config.loading import REFUSED
from innerloop.errors import Faults

__all__ = ["LoraConfig", "lora_keys"]

_LORA = ("r", "lora_alpha", "lora_dropout", "use_rslora", "init_lora_weights")
_READ = {*_LORA, "target_modules", "layers_to_transform", "task_type", "peft_type", "inference_mode", "peft_version"}


def lora_keys(config: LoraConfig | None) -> dict[str, Any]:
    """PEFT's settings as config keys. Raises UserError for an option that innerloop has no reading of."""
    if config is None:
        return {}
    faults, default = Faults(), type(config)()
    for name, value in config.to_dict().items():
        if name not in _READ and value != default.to_dict().get(name):
            problem, right = REFUSED.get(f"method.lora.{name}") or ("not read here", "leave it out")
            faults.add(problem, f"peft_config.{name}", value, right)
    faults.raise_if_any()
    found = {f"method.lora.{name}": getattr(config, name) for name in _LORA}
    if config.target_modules is not None:
        modules = config.target_modules
        found["method.lora.target_modules"] = modules if isinstance(modules, str) else sorted(modules)
    if config.layers_to_transform is not None:
        layers = config.layers_to_transform
        found["method.lora.layers"] = [layers] if isinstance(layers, int) else list(layers)
    return found
