"""What PEFT takes over says what we say, and our model and the caller's stay as they are."""

from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import pipeline

from helpers import close, relative_error
from innerloop.errors import UserError
from small_runs import SUPPORT, Runs, logits_of, tokens_of


def test_logits_are_ours(runs: Runs) -> None:
    learned = runs("fomaml-lora")
    tokens, base = tokens_of(learned), learned.model.model
    before, modules = base(tokens).logits, list(base.modules())
    adapted = learned.adapt(SUPPORT, steps=3)
    for ours in (learned.unadapted, adapted):
        theirs = (learned if ours is not adapted else adapted).peft_model()
        assert isinstance(theirs, PeftModel)
        with torch.no_grad():
            assert close(theirs(tokens).logits, logits_of(learned, ours.values, tokens))
            assert relative_error(theirs(tokens).logits, before) > 1e-4  # an adapter that does nothing would be noticed
    assert list(base.modules()) == modules
    assert torch.equal(base(tokens).logits, before)


def test_it_writes_in_a_pipeline_what_ours_generates(runs: Runs) -> None:
    learned = runs("fomaml-lora")
    adapted = learned.adapt(SUPPORT, steps=10)
    model: Any = adapted.peft_model()
    tokenizer: Any = learned.model.tokenizer
    writes = pipeline("text-generation", model=model, tokenizer=tokenizer)
    prompt = "eve 3:"
    (said,) = writes(prompt, max_new_tokens=6, do_sample=False, return_full_text=False)
    assert isinstance(said, dict)
    assert said["generated_text"].startswith(adapted.generate([prompt], max_new_tokens=6)[0])


def test_a_whole_model_is_no_adapter(runs: Runs) -> None:
    learned = runs("fomaml")
    for of in (learned, learned.adapt(SUPPORT)):
        with pytest.raises(UserError, match="there is no adapter"):
            of.peft_model()
