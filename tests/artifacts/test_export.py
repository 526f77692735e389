"""An export read back by transformers and PEFT alone gives the logits that were exported."""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from innerloop.artifacts.export import export_adapter, export_model, reload_logits
from innerloop.errors import RunError, UserError
from innerloop.planning.tracking import ByteTracker, footprint
from innerloop.spaces.lora import LoraSettings
from tiny import FAMILIES, save_tiny, tiny_model, tiny_tokenizer

TOKENS = torch.randint(64, (2, 9), generator=torch.Generator().manual_seed(5))
LORA = LoraSettings(r=4, lora_alpha=12, lora_dropout=0.5)


def lora_values(model, r=4, keep=lambda path: True):
    """Random A and B for the linear modules of the decoder layers that `keep` picks."""
    generator = torch.Generator().manual_seed(1)
    values = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and ".layers." in path and keep(path):
            values[f"{path}.lora_A"] = torch.randn(r, module.in_features, generator=generator) * 0.1
            values[f"{path}.lora_B"] = torch.randn(module.out_features, r, generator=generator) * 0.1
    return values


@contextmanager
def added(model, values, scale) -> Iterator[None]:
    """The definition: each module's output plus scale * B A x."""

    def hook(a, b):
        return lambda module, inputs, output: output + scale * (inputs[0] @ a.T @ b.T)

    paths = [name.removesuffix(".lora_A") for name in values if name.endswith(".lora_A")]
    handles = [
        model.get_submodule(path).register_forward_hook(hook(values[f"{path}.lora_A"], values[f"{path}.lora_B"]))
        for path in paths
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def logits(model, values=None, scale=0.0):
    with added(model, values or {}, scale):
        return model(input_ids=TOKENS).logits


def bits(model):
    return {name: tensor.clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_read_by_peft_gives_the_same_logits(tmp_path: Path, family: str) -> None:
    base = save_tiny(tmp_path / "base", family)
    model = tiny_model(family)
    values, before, config = lora_values(model), bits(model), copy.deepcopy(model.config)
    export_adapter(tmp_path / "adapter", model, values=values, lora=LORA, base_name=str(base))
    reloaded = reload_logits(tmp_path / "adapter", TOKENS)
    torch.testing.assert_close(reloaded, logits(model, values, LORA.scale), rtol=0, atol=1e-5)
    assert same(bits(model), before)
    assert model.config.to_dict() == config.to_dict()
    assert not any(module._forward_hooks for module in model.modules())
    # the check can fail: neither another scale nor the bare base comes near
    assert (reloaded - logits(model, values, LORA.scale * 1.1)).abs().max() > 1e-3
    assert (reloaded - logits(model)).abs().max() > 1e-3


def test_rslora_scales_by_the_square_root_of_the_rank(tmp_path: Path) -> None:
    base, model = save_tiny(tmp_path / "base"), tiny_model("llama")
    settings, values = LoraSettings(r=4, lora_alpha=12, use_rslora=True), lora_values(model)
    export_adapter(tmp_path / "adapter", model, values=values, lora=settings, base_name=str(base))
    reloaded = reload_logits(tmp_path / "adapter", TOKENS)
    torch.testing.assert_close(reloaded, logits(model, values, 12 / 4**0.5), rtol=0, atol=1e-5)
    assert (reloaded - logits(model, values, 12 / 4)).abs().max() > 1e-3


def _layer_one(path: str) -> bool:
    return ".layers.1." in path


def _many(path: str) -> bool:
    return ".layers.1" in path


@pytest.mark.parametrize("keep", [_layer_one, _many])
def test_only_the_modules_meant_are_adapted(tmp_path: Path, keep) -> None:
    """Of 12 layers: 1 but not 11; and 1, 10 and 11 but not 0."""
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    base, model = save_tiny(tmp_path / "base", layers=12), tiny_model("llama", layers=12)
    values = lora_values(model, keep=keep)
    paths = sorted({name[:-7] for name in values})
    export_adapter(tmp_path / "adapter", model, values=values, lora=LORA, base_name=str(base))
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["target_modules"] == paths
    reloaded = PeftModel.from_pretrained(tiny_model("llama", layers=12), str(tmp_path / "adapter"))
    adapted = [name for name, module in reloaded.named_modules() if isinstance(module, LoraLayer)]
    assert sorted(name.removeprefix("base_model.model.") for name in adapted) == paths
    torch.testing.assert_close(
        reload_logits(tmp_path / "adapter", TOKENS), logits(model, values, LORA.scale), rtol=0, atol=1e-5
    )


def test_a_long_list_of_modules_is_written_out_and_twice_the_same(tmp_path: Path) -> None:
    model = tiny_model("llama", layers=12)
    values = lora_values(model)
    for name in ("one", "two"):
        export_adapter(tmp_path / name, model, values=values, lora=LORA, base_name="some/base")
    config = json.loads((tmp_path / "one/adapter_config.json").read_text())
    assert len(config["target_modules"]) == 12 * 7
    assert config["base_model_name_or_path"] == "some/base"
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_read_by_transformers_gives_the_same_logits(tmp_path: Path, family: str) -> None:
    model, other = tiny_model(family), tiny_model(family, seed=1)
    before, values = bits(model), dict(other.named_parameters())
    export_model(tmp_path / "model", model, values=values)
    reloaded = reload_logits(tmp_path / "model", TOKENS)
    torch.testing.assert_close(reloaded, logits(other), rtol=0, atol=1e-6)
    assert same(bits(model), before)
    assert (reloaded - logits(model)).abs().max() > 1e-2


def test_tied_weights_are_stored_once_and_dtype_is_the_models(tmp_path: Path) -> None:
    from safetensors import safe_open

    model = tiny_model("qwen2").to(torch.bfloat16)
    values = {name: value.float() for name, value in tiny_model("qwen2", seed=1).named_parameters()}
    export_model(tmp_path / "model", model, values=values, tokenizer=tiny_tokenizer())
    with safe_open(tmp_path / "model/model.safetensors", framework="pt") as stored:
        assert set(stored.keys()) == set(values)
        assert all(stored.get_tensor(name).dtype == torch.bfloat16 for name in values)
    assert json.loads((tmp_path / "model/config.json").read_text())["dtype"] == "bfloat16"
    assert (tmp_path / "model/tokenizer.json").exists()


def test_parameters_that_were_not_learned_keep_the_models_values(tmp_path: Path) -> None:
    model, name = tiny_model("llama"), "model.layers.1.mlp.up_proj.weight"
    changed = tiny_model("llama")
    changed.get_parameter(name).mul_(3)
    export_model(tmp_path / "model", model, values={name: model.get_parameter(name) * 3})
    torch.testing.assert_close(reload_logits(tmp_path / "model", TOKENS), logits(changed), rtol=0, atol=1e-6)


def test_an_earlier_export_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    model, folder = tiny_model("llama"), tmp_path / "adapter"
    values = lora_values(model)
    for scale in (1.0, 2.0):
        scaled = {name: value * scale for name, value in values.items()}
        export_adapter(folder, model, values=scaled, lora=LORA, base_name="some/base")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    written = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"other files[\s\S]*notes\.txt"):
        export_adapter(folder, model, values=values, lora=LORA, base_name="some/base")
    assert (folder / "adapter_model.safetensors").read_bytes() == written
    base = save_tiny(tmp_path / "base")
    with pytest.raises(UserError, match="other files"):
        export_model(base, model, values=dict(model.named_parameters()))
    assert (base / "model.safetensors").exists()
    (tmp_path / "file").write_text("mine")
    for folder, named in [(tmp_path / "file", "in the way"), (tmp_path / "file/model", "can't write")]:
        with pytest.raises(UserError, match=named):
            export_model(folder, model, values=dict(model.named_parameters()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    model = tiny_model("llama")
    values = lora_values(model)
    name = sorted(values)[3]
    values[name][0, 0] = bad
    with pytest.raises(RunError, match=name.replace(".", r"\.")):
        export_adapter(tmp_path / "adapter", model, values=values, lora=LORA, base_name="some/base")
    parameters = {name: value.clone() for name, value in model.named_parameters()}
    parameters["model.norm.weight"][0] = bad
    with pytest.raises(RunError, match=r"model\.norm\.weight"):
        export_model(tmp_path / "model", model, values=parameters)
    assert list(tmp_path.iterdir()) == []


def test_values_that_do_not_fit_the_model_are_named(tmp_path: Path) -> None:
    model = tiny_model("llama")
    path = "model.layers.0.self_attn.q_proj"
    both = {f"{path}.lora_A": torch.zeros(4, 32), f"{path}.lora_B": torch.zeros(32, 4)}
    wrong = [
        ({}, "nothing to export"),
        ({"model.layers.7.self_attn.q_proj.lora_A": torch.zeros(4, 32)}, r"layers\.7"),
        ({f"{path}.lora_A": both[f"{path}.lora_A"]}, r"q_proj\.lora_B"),
        ({**both, f"{path}.lora_A": torch.zeros(8, 32)}, r"\[4, 32\]"),
    ]
    for values, named in wrong:
        with pytest.raises(UserError, match=named):
            export_adapter(tmp_path / "adapter", model, values=values, lora=LORA, base_name="some/base")
    for values, named in [
        ({"model.zork": torch.zeros(1)}, "zork"),
        ({"model.norm.weight": torch.zeros(3)}, "32"),
    ]:
        with pytest.raises(UserError, match=named):
            export_model(tmp_path / "model", model, values=values)
    assert list(tmp_path.iterdir()) == []


def added_bytes(model: nn.Module, save: Callable[[], object]) -> int:
    """Bytes that exist at once beside the model's."""
    tracker = ByteTracker(torch.device("cpu"))
    tracker.adopt("base", model.parameters())
    tracker.at(phase="save", stage="between")
    with tracker:
        save()
    return footprint(tracker.peaks, tracker.host_peak, tracker.flops).peak - sum(p.nbytes for p in model.parameters())


def test_an_export_adds_no_second_copy_of_what_it_writes(tmp_path: Path) -> None:
    model = tiny_model("gemma")
    values = {name: parameter.detach() for name, parameter in model.named_parameters()}
    size = sum(value.nbytes for value in values.values())
    assert added_bytes(model, lambda: export_model(tmp_path / "model", model, values=values)) < 0.05 * size
    assert added_bytes(model, lambda: {name: value.clone() for name, value in values.items()}) >= size
