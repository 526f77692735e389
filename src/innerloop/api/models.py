"""The model argument of MetaTrainer: a name, or a live transformers model.

given_model   a name, or a transformers model with its tokenizer -> LoadedModel, or None where the name is enough
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from innerloop.errors import Fault, UserError
from innerloop.loading.architecture import check_architecture
from innerloop.loading.models import LoadedModel, known_hub_id, same_weights

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
    was_training, trains = model.training, [p.requires_grad for p in model.parameters()]
    try:
        check_architecture(model.eval().requires_grad_(False))
    finally:
        model.train(was_training)
        for parameter, own in zip(model.parameters(), trains, strict=True):
            parameter.requires_grad_(own)
    name = model.config.name_or_path or "unnamed"
    source = str(Path(name).resolve()) if Path(name).is_dir() else name
    on_disk = same_weights(model, name)
    digest = on_disk or _digest(model)
    return name, LoadedModel(model, tokenizer, name, source, digest, known_hub_id(name, source) if on_disk else "")


@torch.no_grad()
def _digest(model: "PreTrainedModel") -> str:
    """Of the weights as they are in memory."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
