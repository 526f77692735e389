"""A model's shape by its name: its config, never its weights.

model_shape     name -> config: of a folder, a known model, a GGUF file, the hub's cache, and last the hub itself
skeleton        the model of a shape, without storage; refused where innerloop could not train it
has_tokenizer   whether `models.load_tokenizer` would find the tokenizer on this machine
known_models    name -> the fields of its config, for the models whose shapes ship with the package
"""

import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from innerloop.errors import Fault, UserError, did_you_mean
from innerloop.files import at_home
from innerloop.loading.architecture import check_no_kernel, check_parts
from innerloop.loading.gguf_files import gguf_file

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

CONFIG = "config.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
SECONDS_FOR_THE_HUB = 5.0

_WHERE = "model.name"
_OWN = {"local_files_only": True, "trust_remote_code": False}  # unless told, transformers asks whether to run its code


def model_shape(name: str, *, revision: str | None = None) -> "PretrainedConfig":
    """The config of the model that a run calls `name`; only one that is nowhere on this machine is downloaded.

    revision: of a hub id; the shapes that ship with the package are those of any
    name: a folder or its config.json, a known or packaged model, a `.gguf` file, a hub id
    Raises UserError where no config.json is found, or transformers can't read it.
    """
    from transformers import AutoConfig

    path = at_home(name)
    if name and (path.is_dir() or path.name == CONFIG):
        folder = path.parent if path.name == CONFIG else path
        return _of_folder(folder, name)
    if fields := known_models().get(name):
        return AutoConfig.for_model(**fields)
    if gguf := gguf_file(name):
        return _explained(name, lambda: AutoConfig.from_pretrained(str(gguf.parent), gguf_file=gguf.name, **_OWN))
    if cached := _cached(name, CONFIG, revision):
        return _of_folder(Path(cached).parent, name)
    return _from_hub(name, revision)


def skeleton(shape: "PretrainedConfig", *, attn_implementation: str | None = None) -> "PreTrainedModel":
    """The model of `shape` on torch's meta device: names and sizes of its tensors, and no memory for them.

    Raises UserError as `check_parts` does.
    """
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            own = {"attn_implementation": attn_implementation} if attn_implementation else {}
            model: PreTrainedModel = AutoModelForCausalLM.from_config(shape, **own)
    except Exception as error:  # a config that is none can make a constructor raise anything
        problem = f"transformers can't build a causal language model of this shape ({_in_a_line(error)})"
        raise UserError(Fault(problem, f"model family {shape.model_type!r}")) from error
    check_parts(model)
    return model


def has_tokenizer(name: str, *, revision: str | None = None) -> bool:
    """False where a folder has none, or it would have to be downloaded."""
    folder = at_home(name)
    if folder.is_dir():
        return any((folder / file).is_file() for file in TOKENIZER_FILES)
    try:
        if gguf_file(name):
            return True
    except UserError:  # the package that carries the model is not installed
        return False
    return bool(_cached(name, CONFIG, revision)) and any(_cached(name, file, revision) for file in TOKENIZER_FILES)


def known_models() -> Mapping[str, Mapping[str, Any]]:
    """Only the fields that decide sizes. Their counts of parameters are the published ones."""
    return {name: row["config"] for row in _rows() for name in row["names"]}


@cache
def _rows() -> list[dict[str, Any]]:
    return json.loads(files("innerloop.loading").joinpath("known_models.json").read_text("utf-8"))


def _of_folder(folder: Path, name: str) -> "PretrainedConfig":
    from transformers import AutoConfig

    if not (folder / CONFIG).is_file():
        adapter = "the adapter's base model" if (folder / "adapter_config.json").is_file() else _right(name)
        raise UserError(Fault(f"no {CONFIG} here", _WHERE, name, adapter))
    check_no_kernel(folder / CONFIG, name)
    return _explained(name, lambda: AutoConfig.from_pretrained(str(folder), **_OWN))


def _cached(name: str, file: str, revision: str | None) -> str | None:
    """The path of a file of the hub model `name`, where this machine has it."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, file, revision=revision)
    except HFValidationError:  # no hub id
        return None
    return found if isinstance(found, str) else None


def _from_hub(name: str, revision: str | None) -> "PretrainedConfig":
    """Read from the hub and not kept: in its cache, a folder without the rest would pass for the whole model."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status
    from transformers import AutoConfig

    try:
        url, headers = hf_hub_url(name, CONFIG, revision=revision), build_hf_headers()
        answer = get_session().get(url, headers=headers, timeout=SECONDS_FOR_THE_HUB, follow_redirects=True)
        hf_raise_for_status(answer)
    except HFValidationError as error:
        raise UserError(Fault("no such folder or file", _WHERE, name, _right(name))) from error
    except Exception as error:  # a network can make its client raise anything
        problem = f"no {CONFIG} of this model on this machine, nor from the hub ({type(error).__name__})"
        expected = f"a network, with `hf auth login` for a gated one; {_right(name)}"
        raise UserError(Fault(problem, _WHERE, name, expected)) from error

    def read() -> "PretrainedConfig":
        check_no_kernel(answer.json(), name)
        return AutoConfig.for_model(**answer.json())

    return _explained(name, read)


def _right(name: str) -> str:
    known = did_you_mean(name, (row["names"][0] for row in _rows()))
    return f"a folder with the model's {CONFIG}, or a known model: {known}"


def _explained(name: str, read: "Callable[[], PretrainedConfig]") -> "PretrainedConfig":
    try:
        return read()
    except UserError:
        raise
    except Exception as error:  # a damaged file can make a reader raise anything
        raise UserError(Fault(f"transformers can't read this config ({_in_a_line(error)})", _WHERE, name)) from error


def _in_a_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
