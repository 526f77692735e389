"""The model argument of MetaTrainer: a name, or a live transformers model.

frozen        a model in use, left as it was
given_model   a name, or a transformers model with its tokenizer -> LoadedModel, or None where the name is enough
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from innerloop.errors import Fault, UserError
from innerloop.loading.architecture import check_architecture
from innerloop.loading.models import LoadedModel, known_hub_id, same_weights
from innerloop.loading.weights import fingerprint_of, own_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def given_model(model: Any, tokenizer: "PreTrainedTokenizerBase | None") -> tuple[str, LoadedModel | None]:
    """The model's name, and itself where it is one. It stays as it is: what is trained is a copy, or lies beside it.

    Raises UserError for anything else, for a model without a tokenizer, and for one that innerloop can't train.
    """
    if isinstance(model, str | Path):
        if tokenizer is not None:
            right = "the model too, as an object; or leave it out: a name's own tokenizer is read"
            raise UserError(Fault("a tokenizer beside a model's name", "tokenizer", type(tokenizer).__name__, right))
        return str(model), None
    if isinstance(model, LoadedModel):
        return model.name, model
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        right = "a hub id, a folder, or a transformers model with its tokenizer"
        raise UserError(Fault("not a model", "model", type(model).__name__, right))
    if tokenizer is None:
        right = "tokenizer=, or processing_class="
        raise UserError(Fault("a model without its tokenizer", "tokenizer", expected=right))
    return _live(model, tokenizer)


def _live(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> tuple[str, LoadedModel]:
    with frozen(model):
        check_architecture(model)
    name = model.config.name_or_path or "unnamed"
    if digest := same_weights(model, name):
        source = str(Path(name).resolve()) if Path(name).is_dir() else name
        return name, LoadedModel(model, tokenizer, name, source, digest, known_hub_id(name, source))
    # Nothing on disk, nor on the hub, has these weights: no export may name a base that would be another one.
    return name, LoadedModel(model, tokenizer, name, f"memory: {name}", fingerprint_of(own_tensors(model)))


@contextmanager
def frozen(model: nn.Module) -> Generator[None]:
    """A caller's model takes no gradients and drops nothing out while it is used, and is then as it was."""
    training, trains = model.training, [parameter.requires_grad for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        model.train(training)
        for parameter, own in zip(model.parameters(), trains, strict=True):
            parameter.requires_grad_(own)
