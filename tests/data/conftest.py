"""A tokenizer for any text: one token a byte, a few merges, and a chat template."""

from collections.abc import Callable
from typing import Any

import pytest

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_tokenizer(**settings: Any) -> Any:
    """Merges reach over the border of prompt and answer: read as one, ": 7" is one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "7"), (":", "Ġ7"), ("a", "b")]
    tokens = [
        "</s>",
        "<s>",
        "<|im_start|>",
        "<|im_end|>",
        *alphabet,
        *(left + right for left, right in merges),
    ]
    vocab = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    own = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "chat_template": CHATML,
        "model_max_length": 4096,
    }
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{**own, **settings})


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return byte_tokenizer()


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """Another tokenizer like `tokenizer`, with other settings."""
    return byte_tokenizer
