"""A GGUF adapter, read back by the gguf package, is the update that was exported, in the places llama.cpp has for it.

That llama.cpp itself then gives our logits was measured once: docs/design/0023-adapters-for-llama-cpp.md.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from innerloop.artifacts.gguf_adapter import GGUF_NAMES, export_gguf
from innerloop.errors import UserError
from innerloop.spaces.lora import LoraSettings, find_targets
from tiny import FAMILIES, tiny_model

gguf = pytest.importorskip("gguf", reason="the extra `demo` isn't installed")

LORA = LoraSettings(r=4, lora_alpha=12)
KNOWN = [family for family in FAMILIES if tiny_model(family).config.model_type in GGUF_NAMES]
ROUNDING = {"float32": 0.0, "float16": 2**-11, "bfloat16": 2**-8}  # of a value, relative
ROW = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
ROW |= {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}


def drawn(model: Any) -> dict[str, torch.Tensor]:
    generator, values = torch.Generator().manual_seed(1), dict[str, torch.Tensor]()
    for path, module in find_targets(model, LORA).items():
        values[f"{path}.lora_A"] = torch.randn(LORA.r, module.in_features, generator=generator)
        values[f"{path}.lora_B"] = torch.randn(module.out_features, LORA.r, generator=generator)
    return values


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {each.name: gguf.quants.dequantize(each.data, each.tensor_type) for each in reader.tensors}
    return fields, tensors


def in_our_order(update: np.ndarray, module: str, model: Any) -> np.ndarray:
    """transformers' own way back from llama.cpp's order of rows, for the family that has one."""
    from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

    if GGUF_NAMES[model.config.model_type] != "llama" or module not in ("q_proj", "k_proj"):
        return update
    heads, key_heads = model.config.num_attention_heads, model.config.num_key_value_heads
    back = LlamaTensorProcessor._reverse_permute_weights
    return back(SimpleNamespace(), update, heads, heads if module == "q_proj" else key_heads)


@pytest.mark.parametrize("family", KNOWN)
def test_read_back_it_is_the_update_of_every_module(tmp_path: Path, family: str) -> None:
    model = tiny_model(family)
    values = drawn(model)
    export_gguf(tmp_path / "a.gguf", model, values=values, lora=LORA)
    fields, tensors = read(tmp_path / "a.gguf")
    assert fields["general.type"] == "adapter"
    assert fields["adapter.type"] == "lora"
    assert fields["general.architecture"] == GGUF_NAMES[model.config.model_type]
    assert len(tensors) == len(values)
    scale, moved = fields["adapter.lora.alpha"] / LORA.r, set()
    for path in find_targets(model, LORA):
        layer, module = path.split(".")[2], path.rpartition(".")[2]
        name = f"blk.{layer}.{ROW[module]}.weight"
        A, B = tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]
        wanted = LORA.scale * (values[f"{path}.lora_B"] @ values[f"{path}.lora_A"]).numpy()
        np.testing.assert_allclose(in_our_order(scale * B @ A, module, model), wanted, rtol=1e-5, atol=1e-5)
        if not np.allclose(scale * B @ A, wanted, atol=1e-2):
            moved.add(module)
    assert moved == ({"q_proj", "k_proj"} if fields["general.architecture"] == "llama" else set())


@pytest.mark.parametrize("dtype", ROUNDING)
def test_values_are_rounded_to_the_dtype_and_no_further(tmp_path: Path, dtype: str) -> None:
    model = tiny_model("qwen2")
    values = drawn(model)
    export_gguf(tmp_path / "a.gguf", model, values=values, lora=LORA, dtype=dtype, base_name="somebody/a-model")
    fields, tensors = read(tmp_path / "a.gguf")
    value, found = values["model.layers.1.mlp.up_proj.lora_A"].numpy(), tensors["blk.1.ffn_up.weight.lora_a"]
    np.testing.assert_allclose(found, value, rtol=ROUNDING[dtype], atol=0)
    assert np.array_equal(found, value) == (dtype == "float32")
    assert fields["general.base_model.0.repo_url"] == "https://huggingface.co/somebody/a-model"


def test_rslora_s_scale_is_in_alpha(tmp_path: Path) -> None:
    model, settings = tiny_model("llama"), LoraSettings(r=4, lora_alpha=12, use_rslora=True)
    export_gguf(tmp_path / "a.gguf", model, values=drawn(model), lora=settings)
    fields, _ = read(tmp_path / "a.gguf")
    assert fields["adapter.lora.alpha"] / 4 == pytest.approx(12 / 4**0.5)


def test_what_is_refused(tmp_path: Path) -> None:
    for family in set(FAMILIES) - set(KNOWN):
        model = tiny_model(family)
        with pytest.raises(UserError, match=f"not known here[\\s\\S]*{model.config.model_type}"):
            export_gguf(tmp_path / "a.gguf", model, values=drawn(model), lora=LORA)
    model = tiny_model("llama")
    with pytest.raises(UserError, match="in the way"):
        export_gguf(tmp_path, model, values=drawn(model), lora=LORA)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="can't write"):
        export_gguf(tmp_path / "file/a.gguf", model, values=drawn(model), lora=LORA)
    with pytest.raises(UserError, match="no name for this module"):
        export_gguf(tmp_path / "a.gguf", model, values={"model.zork.lora_A": torch.zeros(4, 32)}, lora=LORA)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
