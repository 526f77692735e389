"""An export as a model that PEFT, transformers and TRL take from here on.

peft_model   an adapter that `save` writes, around the base model's own weights
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from innerloop.config.loading import RunConfig
from innerloop.errors import Fault, UserError
from innerloop.loading.in_memory import own_modules
from innerloop.loading.models import LoadedModel

if TYPE_CHECKING:
    from peft import PeftModel


def peft_model(config: RunConfig, model: LoadedModel, save: Callable[[Path], None]) -> "PeftModel":
    """As PEFT reads it from disk. The base's weights are shared, and its modules are left as they are.

    Raises UserError where all parameters were trained.
    """
    from peft import PeftModel

    if config.method.row.space.exported != "adapter":
        right = "save_pretrained, and transformers' from_pretrained"
        raise UserError(Fault("all parameters were trained: there is no adapter", "method.name", expected=right))
    with TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        folder = Path(place) / "adapter"
        save(folder)
        return PeftModel.from_pretrained(own_modules(model.model), str(folder)).eval()
