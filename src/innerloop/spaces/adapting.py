"""Which tensors of a space the inner loop moves; the others are the same for every task.

adapting   "all", "lora-b" or "last-8" -> their names
"""

from collections.abc import Iterable

from torch import nn

from innerloop.errors import Fault, UserError
from innerloop.loading.architecture import decoder_layers
from innerloop.spaces.lora import chosen_layers

KEY = "method.inner.train"


def adapting(train: str, names: Iterable[str], model: nn.Module) -> list[str]:
    """Those of `names`, tensors of a space over `model`. Raises UserError where there are none, or no such layers."""
    if train == "all":
        return [*names]
    if train == "lora-b":
        found = [name for name in names if name.endswith(".lora_B")]
    else:
        layers = decoder_layers(model)
        upper = {id(layers[index]) for index in chosen_layers(train, len(layers), where=KEY)}
        modules: dict[str, nn.Module] = dict(model.named_modules())  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        paths = tuple(f"{path}." for path, module in modules.items() if id(module) in upper)
        found = [name for name in names if name.startswith(paths)]
    if not found:
        raise UserError(Fault("nothing that is trained would adapt", KEY, train, "all, or layers that are trained"))
    return found
