"""Tiny random-weight models of each family, and a tokenizer of 64 characters: real classes, no network.

tiny_model      a three-layer causal LM of one family, hidden size 32, 64 tokens
tiny_tokenizer  one token a character, <pad> <bos> <eos> <unk>, and a chat template
save_tiny       both of them in a folder that `innerloop.loading.models.load` reads
"""

from pathlib import Path
from typing import Any

import torch

FAMILIES = (
    "llama",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "mistral",
    "phi",
    "phi3",
    "gpt_neox",
)

_CLASSES = {
    "llama": ("LlamaConfig", "LlamaForCausalLM"),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM"),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM"),
    "gemma": ("GemmaConfig", "GemmaForCausalLM"),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM"),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM"),
    "mistral": ("MistralConfig", "MistralForCausalLM"),
    "phi": ("PhiConfig", "PhiForCausalLM"),
    "phi3": ("Phi3Config", "Phi3ForCausalLM"),
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM"),
}
_ONE_KEY_HEAD_EACH = ("phi", "gpt_neox")
_TIED = ("qwen2", "qwen3", "gemma", "gemma2", "gemma3")
_EXPLICIT_HEAD_DIM = ("qwen3", "gemma", "gemma2", "gemma3")
_OWN_SETTINGS: dict[str, dict[str, Any]] = {
    "gemma2": {"query_pre_attn_scalar": 8, "sliding_window": 16},
    "gemma3": {"query_pre_attn_scalar": 8, "sliding_window": 16},
}

CHARACTERS = " \nabcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"+-*/=()<>|_%&#"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ message['role'] + ': ' + message['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def tiny_config(family: str, *, layers: int = 3) -> Any:
    """The transformers config of a tiny model of `family`."""
    import transformers

    settings: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 4 if family in _ONE_KEY_HEAD_EACH else 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.1,
        "tie_word_embeddings": family in _TIED,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if family in _EXPLICIT_HEAD_DIM:
        settings["head_dim"] = 8
    return getattr(transformers, _CLASSES[family][0])(**settings, **_OWN_SETTINGS.get(family, {}))


def tiny_model(family: str, *, layers: int = 3, seed: int = 0) -> Any:
    """A frozen float32 model in eval mode; equal seeds, equal weights. The global generator is left alone."""
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, _CLASSES[family][1])(tiny_config(family, layers=layers))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:  # biases start at 0 and norms at 1: a bug in either would not show
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False)


def tiny_tokenizer() -> Any:
    """One token a character; upper case reads as lower case, anything else unknown as <unk>."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ("<pad>", "<bos>", "<eos>", "<unk>")
    vocab = {token: index for index, token in enumerate((*special, *CHARACTERS))}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
    )


def save_tiny(folder: Path, family: str = "llama", *, layers: int = 3, seed: int = 0) -> Path:
    """Writes a model and its tokenizer to `folder` and returns it.

    transformers reads any qwen2 folder's tokenizer as Qwen2Tokenizer, which does not know these characters.
    """
    tiny_model(family, layers=layers, seed=seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
