"""The model argument of MetaTrainer: a name, or a live transformers model.

given_model   a name, or a transformers model with its tokenizer -> LoadedModel, or None where the name is enough
Adapter       that of a PEFT model: its settings, and its values as a folder to start from
given_adapter a PEFT model -> Adapter; None of any other
"""

import copy
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from innerloop.artifacts.adapter_folder import CONFIG, WEIGHTS
from innerloop.errors import Fault, UserError
from innerloop.files import replaced_folder
from innerloop.loading.in_memory import in_memory, own_modules
from innerloop.loading.models import LoadedModel

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
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
    if _is_peft(model):
        model = own_modules(
            model
        ).unload()  # the layers around the adapter's are the copy's own; its weights are shared
    found = model if isinstance(model, LoadedModel) else in_memory(model, tokenizer)
    return found.name, found


@dataclass(frozen=True)
class Adapter:
    """config: PEFT's LoraConfig, without what names its base."""

    model: "PeftModel"
    config: "LoraConfig"

    def write(self, folder: Path) -> None:
        """What `start_from` reads. Raises UserError where another adapter is."""
        with tempfile.TemporaryDirectory() as place:
            name = self.model.active_adapter
            assert isinstance(name, str)
            self.model.save_pretrained(place, selected_adapters=[name], save_embedding_layers=False)
            made = Path(place) if name == "default" else Path(place) / name
            weights, config = ((made / file).read_bytes() for file in (WEIGHTS, CONFIG))
        if folder.exists():
            if not (folder / WEIGHTS).is_file() or (folder / WEIGHTS).read_bytes() != weights:
                raise UserError(Fault("the start of another run is here", str(folder), expected="another output_dir"))
            return
        with replaced_folder(folder) as fresh:
            (fresh / WEIGHTS).write_bytes(weights)
            (fresh / CONFIG).write_bytes(config)


def given_adapter(model: Any) -> Adapter | None:
    """Raises UserError for a PEFT model of another kind than one LoRA, and for one whose adapter is merged."""
    if not _is_peft(model):
        return None
    from peft import LoraConfig
    from peft.tuners.tuners_utils import BaseTunerLayer

    active = model.active_adapters
    config = model.peft_config[active[0]] if len(active) == 1 else None
    if not isinstance(config, LoraConfig):
        right = "one active adapter, a LoRA"
        raise UserError(Fault("not a model with one LoRA adapter", "model", type(config).__name__, right))
    if any(isinstance(layer, BaseTunerLayer) and layer.merged for layer in model.modules()):
        raise UserError(Fault("the adapter is merged into the base", "model", expected="model.unmerge_adapter() first"))
    own = copy.copy(config)
    own.base_model_name_or_path = own.revision = own.auto_mapping = None
    return Adapter(model, own)


def _is_peft(model: Any) -> bool:
    from peft import PeftModel

    return isinstance(model, PeftModel)
