"""A transformers model that somebody else holds: used beside them, and never changed.

own_modules   the same weights in modules of their own
in_memory     a model and its tokenizer -> LoadedModel
"""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor, nn

from innerloop.errors import Fault, UserError
from innerloop.loading.architecture import check_architecture
from innerloop.loading.models import LoadedModel, known_hub_id, same_weights
from innerloop.loading.weights import fingerprint_of, own_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_Module = TypeVar("_Module", bound=nn.Module)


def own_modules(model: _Module) -> _Module:
    """The model around the same memory, in eval mode and without gradients.

    Its hooks, layers and modes are its own, so nothing that is done with it is seen in `model`, and no mode of `model`
    (dropout, gradients) is seen in it.
    """
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): _same_memory(tensor) for tensor in tensors}).eval()


def in_memory(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase | None") -> LoadedModel:
    """Raises UserError for what is no model, has no tokenizer, or can't be trained by innerloop."""
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):  # pyright: ignore[reportUnnecessaryIsInstance]
        right = "a hub id, a folder, or a transformers model with its tokenizer"
        raise UserError(Fault("not a model", "model", type(model).__name__, right))
    if tokenizer is None:
        right = "tokenizer=, or processing_class="
        raise UserError(Fault("a model without its tokenizer", "tokenizer", expected=right))
    own, name = own_modules(model), model.config.name_or_path or "unnamed"
    check_architecture(own)
    if digest := same_weights(own, name):
        source = str(Path(name).resolve()) if Path(name).is_dir() else name
        return LoadedModel(own, tokenizer, name, source, digest, known_hub_id(name, source))
    # Nothing on disk, nor on the hub, has these weights: no export may name a base that would be another one.
    return LoadedModel(own, tokenizer, name, f"memory: {name}", fingerprint_of(own_tensors(own)))


def _same_memory(tensor: Tensor) -> Tensor:
    if type(tensor) is nn.Parameter:
        return nn.Parameter(tensor.detach(), requires_grad=False)
    return tensor.detach() if type(tensor) is Tensor else tensor  # a quantized one has parts of its own
