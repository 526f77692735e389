"""What leaves innerloop gives the logits of its values in transformers and PEFT alone, whatever form it has."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from helpers import same
from innerloop.artifacts.portable import TOLERANCE, Portable, plain_adapter
from innerloop.errors import UserError
from innerloop.loading.models import DTYPES
from innerloop.runs.learned import Learned
from small_runs import SUPPORT, Runs, logits_of, tokens_of


def stored(folder: Path) -> dict[str, Tensor]:
    (path,) = folder.glob("*.safetensors")
    return load_file(path)


def strong(learned: Learned) -> Portable:
    """With values that change every logit."""
    generator = torch.Generator().manual_seed(3)
    shared = learned.space.shared
    return learned.portable(
        {name: torch.randn(value.shape, generator=generator) * 0.2 for name, value in shared.items()}
    )


def test_merged_it_is_a_plain_model_with_the_logits_of_base_and_adapter(runs: Runs, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    learned = runs("meta-lora")
    before = {name: value.clone() for name, value in learned.model.model.state_dict().items()}
    portable, tokens = strong(learned), tokens_of(learned)
    portable.save(tmp_path / "merged", merged=True)
    here = logits_of(learned, {name: value[None] for name, value in portable.values.items()}, tokens)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        there = plain(input_ids=tokens).logits
        torch.testing.assert_close(there, here, rtol=0, atol=TOLERANCE)
        assert (there - learned.model.model(input_ids=tokens).logits).abs().max() > 1e-2, "the base alone is another"
    assert same(dict(learned.model.model.state_dict()), before)
    assert not (tmp_path / "merged/adapter_config.json").exists()
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").vocab_size == learned.model.tokenizer.vocab_size
    text = (tmp_path / "merged/README.md").read_text()
    assert "library_name: transformers" in text
    assert "a model with an adapter merged into it" in text.lower()
    assert "PeftModel" not in text


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_stored_and_agrees(runs: Runs, tmp_path: Path, dtype: str, merged: bool) -> None:
    learned = runs("meta-lora")
    portable, how = strong(learned), {"dtype": dtype, "merged": merged}
    portable.save(tmp_path / "out", **how)
    assert {value.dtype for value in stored(tmp_path / "out").values()} == {getattr(torch, dtype)}
    agreement = portable.agreement(tmp_path / "out", tokens_of(learned), **how)
    assert agreement.difference <= agreement.allowed
    wrong = portable.__class__(**{**vars(portable), "values": {n: 1.3 * v for n, v in portable.values.items()}})
    agreement = wrong.agreement(tmp_path / "out", tokens_of(learned), **how)
    assert agreement.difference > agreement.allowed, "other values are noticed"


def test_an_adapter_is_float32_and_a_model_the_run_s_own_where_nothing_is_said(runs: Runs, tmp_path: Path) -> None:
    for method in ("meta-lora", "joint"):
        runs(method).save_pretrained(tmp_path / method)
        assert {value.dtype for value in stored(tmp_path / method).values()} == {torch.float32}
        agreement = runs(method).portable().agreement(tmp_path / method, tokens_of(runs(method)))
        assert agreement.difference <= TOLERANCE
    runs("joint").save_pretrained(tmp_path / "half", dtype="bfloat16")
    assert json.loads((tmp_path / "half/config.json").read_text())["dtype"] == "bfloat16"


def test_an_adapter_s_folder_alone_gives_what_its_run_does(runs: Runs, tmp_path: Path) -> None:
    adapted = runs("meta-lora").adapt(SUPPORT, steps=3)
    adapted.save_pretrained(tmp_path / "acme")
    adapted.save_pretrained(tmp_path / "merged", merged=True)
    base = runs("meta-lora").model.source
    portable = plain_adapter(tmp_path / "acme", base)
    assert same(dict(portable.values), {name: value[0] for name, value in adapted.values.items()})
    portable.save(tmp_path / "again", merged=True)
    assert same(stored(tmp_path / "again"), stored(tmp_path / "merged"))
    ours, its = ((tmp_path / name / "README.md").read_text() for name in ("merged", "again"))
    assert its == ours
    portable.save(tmp_path / "copy")
    assert (tmp_path / "copy/README.md").read_text() == (tmp_path / "acme/README.md").read_text()
    with pytest.raises(UserError, match="names no base model"):
        plain_adapter(tmp_path / "acme")


def test_what_is_refused(runs: Runs, tmp_path: Path) -> None:
    everything: list[tuple[Any, dict[str, Any], str]] = [
        (runs("joint"), {"merged": True}, "no adapter"),
        (runs("joint"), {"dtype": "int8"}, "unknown dtype"),
        (runs("meta-lora"), {"dtype": "float64"}, "unknown dtype"),
    ]
    for learned, options, named in everything:
        with pytest.raises(UserError, match=named):
            learned.save_pretrained(tmp_path / "out", **options)
    with pytest.raises(UserError, match="no adapter"):
        runs("joint").save_gguf(tmp_path / "out.gguf")
    assert list(tmp_path.iterdir()) == []
