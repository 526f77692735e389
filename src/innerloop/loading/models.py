"""Loads a causal language model and its tokenizer from a hub id, a folder or a GGUF file.

load, load_model, load_tokenizer    by the name a run's config gives
LoadedModel            the model, its tokenizer, and which weights they are
check_revision         whether a name can have one
same_weights           their fingerprint, where a model in memory has the weights of a name
no_bars                transformers reads and writes without its progress bars
"""

import re
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from innerloop.errors import Fault, Faults, UserError, did_you_mean
from innerloop.files import at_home, built_once, cache_folder, file_digest
from innerloop.loading.architecture import check_architecture, check_no_kernel
from innerloop.loading.gguf_files import HUB_IDS, PACKAGED, gguf_file, gguf_tokenizer
from innerloop.loading.weights import fingerprint, stored_tensors, weight_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16")

_WHERE = "model.name"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")
_DESCRIPTION = ["*.json", "*.jinja", "*.txt", "*.model"]
_WEIGHTS = ["model.safetensors", "model-*.safetensors"]
_CONVERSION = 1  # part of the cache's key: raise it when what `_dequantize` writes changes


@dataclass(frozen=True, repr=False)
class LoadedModel:
    """A frozen model in eval mode and its tokenizer.

    name: as the config has it; source: the folder or hub id that was read; fingerprint: of the weights on
    disk, whatever dtype they were loaded in; hub_id: where anyone finds it, "" where that isn't known; revision: of
    the hub's, None for its newest.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    name: str
    source: str
    fingerprint: str
    hub_id: str = ""
    revision: str | None = None

    def __repr__(self) -> str:
        size = sum(parameter.numel() for parameter in cast(nn.Module, self.model).parameters())
        return f"LoadedModel({self.name}, {type(self.model).__name__} of {size:,} parameters)"


def load(
    name: str,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    revision: str | None = None,
    attn_implementation: str | None = None,
) -> LoadedModel:
    """Loads `name`: a hub id, a folder, a `.gguf` file or a packaged model. No pickle files, no remote code.

    tokenizer  the model's own, where it was read before
    revision   a branch, tag or commit of a hub id
    attn_implementation   as in transformers; None: what the family does by itself
    Raises UserError for a name that leads nowhere, weights that are damaged or incomplete, an unknown dtype
    or device, and an architecture that `check_architecture` refuses.
    """
    folder, source = _find(name, weights=True, revision=revision)
    with ThreadPoolExecutor(1) as beside:  # another core reads the bytes while this one is busy with Python
        digest = beside.submit(fingerprint, folder)
        model = _frozen_model(folder, name, dtype=dtype, device=device, attn_implementation=attn_implementation)
        own, digest_ = tokenizer or _read_tokenizer(folder, name), digest.result()
        return LoadedModel(model, own, name, source, digest_, known_hub_id(name, source), revision)


def known_hub_id(name: str, source: str) -> str:
    """The hub id of what was read as `name` from `source`; "" for a folder or file that could be anything."""
    return HUB_IDS.get(name) or (name if source == name and not Path(source).is_absolute() else "")


def check_weights(name: str) -> None:
    """Raises UserError for a folder that lacks what `load(name)` reads; of other names, loading tells."""
    folder = at_home(name)
    if name and folder.is_dir():
        _check_folder(folder, name, weights=True)


def load_model(
    name: str, *, dtype: str = "float32", device: str = "cpu", revision: str | None = None
) -> "PreTrainedModel":
    """The model of `load(name)` alone, for folders without a tokenizer."""
    return _frozen_model(_find(name, weights=True, revision=revision)[0], name, dtype=dtype, device=device)


def load_tokenizer(name: str, *, revision: str | None = None) -> "PreTrainedTokenizerBase":
    """The tokenizer that `load(name)` gives, without reading the weights."""
    check_revision(name, revision)
    gguf = gguf_file(name)
    return (
        _read_gguf_tokenizer(gguf) if gguf else _read_tokenizer(_find(name, weights=False, revision=revision)[0], name)
    )


def same_weights(model: "PreTrainedModel", name: str) -> str:
    """The fingerprint of what `load(name)` reads, where a model in memory has these very weights; else ""."""
    with suppress(UserError):
        folder = _find(name, weights=True)[0]
        live = model.state_dict()
        for key, stored in stored_tensors(folder):
            here = live.get(key)
            if here is None or here.shape != stored.shape or not torch.equal(here.cpu(), stored.to(here.dtype)):
                return ""
        return fingerprint(folder)
    return ""


def _frozen_model(
    folder: Path, name: str, *, dtype: str, device: str, attn_implementation: str | None = None
) -> "PreTrainedModel":
    faults = Faults()
    if dtype not in DTYPES:
        faults.add("unknown dtype", "model.dtype", dtype, did_you_mean(dtype, DTYPES))
    if not _usable(device):
        faults.add("no such device here", "device", device, "cpu, cuda, cuda:N or mps, where torch finds one")
    faults.raise_if_any()
    own = {"attn_implementation": attn_implementation} if attn_implementation else {}
    model = _read_model(str(folder), name, dtype=getattr(torch, dtype), use_safetensors=True, **own)
    cast(nn.Module, model).to(device).eval().requires_grad_(False)
    check_architecture(model)
    return model


def _usable(device: str) -> bool:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):  # which one depends on how torch was built
        return False
    return torch.device(device).type != "meta"


def _find(name: str, *, weights: bool, revision: str | None = None) -> tuple[Path, str]:
    """The folder to read `name` from, and what to call the place."""
    check_revision(name, revision)
    if gguf := gguf_file(name):
        folder = _dequantized(gguf)
        return folder, str(folder)
    folder = at_home(name)
    if name and folder.is_dir():
        _check_folder(folder, name, weights=weights)
        return folder, str(folder.resolve())
    if not _HUB_ID.fullmatch(name):
        expected = "a hub id, a model folder or a .gguf file"
        raise UserError(Fault("no such folder or file", _WHERE, name, expected))
    folder = _hub_folder(name, weights=weights, revision=revision)
    _check_folder(folder, name, weights=weights)
    return folder, name


def _check_folder(folder: Path, name: str, *, weights: bool) -> None:
    found = sorted(path.name for path in folder.iterdir())
    if "adapter_config.json" in found:
        expected = "the adapter's base model"
        raise UserError(Fault("this is a PEFT adapter, not a model", _WHERE, name, expected))
    if "config.json" not in found:
        expected = "a folder written by save_pretrained, or the path of a .gguf file"
        raise UserError(Fault("the folder has no config.json", _WHERE, name, expected))
    check_no_kernel(folder / "config.json", name)
    if weights and not weight_files(folder):
        expected = "model.safetensors or its shards; pickle files (.bin) are never read"
        raise UserError(Fault("the folder has no safetensors weights", _WHERE, name, expected))


def check_revision(name: str, revision: str | None) -> None:
    """Raises UserError for a revision of anything but a hub id."""
    if revision and (name in PACKAGED or name.endswith(".gguf") or at_home(name).is_dir()):
        problem = f"{name!r} is on this machine, and has no revisions"
        raise UserError(Fault(problem, "model.revision", revision, "leave it out; or a hub id as model.name"))


def _hub_folder(name: str, *, weights: bool, revision: str | None) -> Path:
    """The hub cache's folder for `name`; downloaded only where something in it is missing."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    patterns, packaged = _DESCRIPTION + _WEIGHTS * weights, ", ".join(PACKAGED)
    try:
        with suppress(LocalEntryNotFoundError):
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True))
            if (folder / "config.json").exists() and (weight_files(folder) or not weights):
                return folder
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except UserError:
        raise
    except RevisionNotFoundError as error:
        right = "a branch, a tag or a commit of it"
        raise UserError(Fault(f"{name} has no such revision", "model.revision", revision, right)) from error
    except RepositoryNotFoundError as error:
        problem = "no such folder, and no such model on the hub"
        expected = f"a public hub id, `hf auth login` for a private or gated one, or {packaged}"
        raise UserError(Fault(problem, _WHERE, name, expected)) from error
    except Exception as error:  # a network can make its client raise anything
        problem = f"no such folder, not in the hub's cache, and not downloaded ({type(error).__name__})"
        expected = f"a local folder, a .gguf file, a network, or {packaged}"
        raise UserError(Fault(problem, _WHERE, name, expected)) from error


def _read_model(place: str, name: str, **options: Any) -> "PreTrainedModel":
    """The model as transformers reads it; a tensor the weights lack is an error, never a random start."""
    from transformers import AutoModelForCausalLM

    options |= {"trust_remote_code": False, "local_files_only": True, "output_loading_info": True}
    options["ignore_mismatched_sizes"] = True  # they come back in the report, and are refused below by name
    with no_bars():
        model, report = _explained("model", lambda: AutoModelForCausalLM.from_pretrained(place, **options), name)
    faults = Faults()
    if missing := sorted(report["missing_keys"]):
        problem = f"the weights lack {len(missing)} of the model's tensors, {missing[0]} first"
        faults.add(problem, _WHERE, name)
    for key, stored, wanted in sorted(report["mismatched_keys"])[:1]:
        faults.add(f"{key} has another shape than config.json says", _WHERE, list(stored), str(list(wanted)))
    faults.raise_if_any()
    return model


@contextmanager
def no_bars() -> Generator[None]:
    """transformers draws bars while it reads and writes weights; a run's own output is not the place for them."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _read_tokenizer(folder: Path, name: str) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    options = {"trust_remote_code": False, "local_files_only": True}
    return _explained("tokenizer", lambda: AutoTokenizer.from_pretrained(str(folder), **options), name)


def _read_gguf_tokenizer(gguf: Path) -> "PreTrainedTokenizerBase":
    return _explained("tokenizer", lambda: gguf_tokenizer(gguf), str(gguf))


def _explained(what: str, read: Callable[[], Any], name: str) -> Any:
    try:
        return read()
    except UserError:
        raise
    except Exception as error:  # a damaged folder can make a reader raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        if "trust_remote_code" in str(error):
            reason = "it needs Python code from its own folder, and innerloop never runs that"
        raise UserError(Fault(f"transformers can't read this {what} ({reason})", _WHERE, name)) from error


def _dequantized(gguf: Path) -> Path:
    """A folder with the GGUF's weights in float32, which loses nothing of them, and its tokenizer."""
    target = cache_folder() / f"{gguf.stem}-{file_digest(gguf)[:16]}-v{_CONVERSION}"
    try:
        return built_once(target, lambda folder: _dequantize(gguf, folder))
    except OSError as error:
        expected = "a writable folder with room for 4 bytes per parameter; INNERLOOP_CACHE names another"
        problem = f"can't keep the dequantized model: {error}"
        raise UserError(Fault(problem, _WHERE, str(target), expected)) from error


def _dequantize(gguf: Path, folder: Path) -> None:
    import transformers

    options: dict[str, Any] = {"gguf_file": gguf.name, "dtype": torch.float32}
    if config := getattr(transformers, "GgufConfig", None):  # where it exists, weights may stay packed
        options["quantization_config"] = config(dequantize=True)
    model = _read_model(str(gguf.parent), str(gguf), **options)
    with no_bars():
        model.save_pretrained(folder)
    _read_gguf_tokenizer(gguf).save_pretrained(folder)
