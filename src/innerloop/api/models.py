"""The model argument of MetaTrainer: a name, or a live transformers model.

given_model   a name, or a transformers model with its tokenizer -> LoadedModel, or None where the name is enough
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from innerloop.errors import Fault, UserError
from innerloop.loading.in_memory import in_memory
from innerloop.loading.models import LoadedModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def given_model(model: Any, tokenizer: "PreTrainedTokenizerBase | None") -> tuple[str, LoadedModel | None]:
    """The model's name, and itself where it is one. It stays as it is: what is trained is a copy, or lies beside it.

    Raises UserError for anything else, for a model without a tokenizer, and for one that innerloop can't train.
    """
    if isinstance(model, str | Path):
        if tokenizer is not None:
            right = "the model too, as an object; or leave it out: a name's own tokenizer is read"
            raise UserError(Fault("a tokenizer beside a model's name", "tokenizer", type(tokenizer).__name__, right))
        return str(model), None
    found = model if isinstance(model, LoadedModel) else in_memory(model, tokenizer)
    return found.name, found
