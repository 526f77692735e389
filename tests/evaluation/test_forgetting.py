"""Forgetting is KL(base || adapted) of plain full logits, averaged over the base's own continuations."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers import (
    all_space,
    close,
    examples,
    frozen_copy,
    lora_space,
    of_task,
    perturbed,
    reference_model,
    relative_error,
    untouched,
)
from innerloop.data.batches import collate
from innerloop.data.encoding import encode_prompt
from innerloop.data.tasks import token_key
from innerloop.evaluation import forgetting as module
from innerloop.evaluation.forgetting import Continuations, continuations, forgetting, shipped_prompts
from innerloop.evaluation.generation import prompt_of
from innerloop.learning.inner_loop import InnerLoop
from innerloop.numerics.optimizers import AdamW
from innerloop.numerics.tensors import TensorSet, per_task
from innerloop.spaces.space import ParameterSpace
from tiny import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PROMPTS = ["a", "once upon a time", "2 + 2 =", "to be or", "x"]
TASKS = 3
TRAINING = InnerLoop(steps=5, optimizer=AdamW(lr=0.01))


def base_of(model: nn.Module, **options: Any) -> Continuations:
    return continuations(model, TOKENIZER, **{"prompts": PROMPTS, "new_tokens": 7, **options})


def unadapted(space: ParameterSpace, tasks: int) -> TensorSet:
    """B = 0, as a fresh LoRA begins."""
    zero = {name: value * (not name.endswith("lora_B")) for name, value in space.shared.items()}
    return per_task(zero, tasks)


@torch.no_grad()
def plain_divergence(base_model: nn.Module, adapted_model: Any, base: Continuations) -> float:
    """All logits of one text at a time, from the models themselves."""
    rows: list[Tensor] = []
    for example in base.examples:
        tokens, start = torch.tensor([example.tokens]), len(prompt_of(example)) - 1
        p, q = (m(input_ids=tokens, use_cache=False).logits[0, start:-1].double() for m in (base_model, adapted_model))
        rows += ((p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum(-1)).unbind()
    return float(torch.stack(rows).mean())


def divergences(space: ParameterSpace, values: Mapping[str, Tensor], base_model: nn.Module, base: Continuations) -> Any:
    tasks = len(next(iter(values.values())))
    models = (reference_model(space, {n: v[t] for n, v in values.items()}) for t in range(tasks))
    return torch.tensor([plain_divergence(base_model, model, base) for model in models])


def test_200_short_prompts_are_shipped() -> None:
    prompts = shipped_prompts()
    assert len(prompts) == len(set(prompts)) == 200
    for prompt in prompts:
        assert prompt == prompt.strip()
        assert 5 <= len(prompt.split()) <= 15, prompt
        assert len(prompt) < 90


def test_continuations_are_the_bases_own_greedy_ones() -> None:
    model = tiny_model("llama")
    with untouched(model):
        base = base_of(model)
    for prompt, example in zip(PROMPTS, base.examples, strict=True):
        start = encode_prompt(prompt, TOKENIZER)
        assert prompt_of(example) == start
        assert 1 <= len(example.tokens) - len(start) <= 7
        for place in range(len(start), len(example.tokens)):
            logits = model(input_ids=torch.tensor([example.tokens[:place]]), use_cache=False).logits[0, -1]
            assert example.tokens[place] == int(logits.argmax())
        whole = len(example.tokens) - len(start) == 7
        assert whole or example.tokens[-1] == TOKENIZER.eos_token_id
    assert len(base.hidden) == sum(len(e.tokens) - len(prompt_of(e)) for e in base.examples)
    assert len({example.id for example in base.examples}) == len(PROMPTS)
    shorter = base_of(model, new_tokens=3)
    assert not {e.id for e in shorter.examples} & {e.id for e in base.examples}, "other tokens, another id"


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi", "qwen3"])
def test_lora_forgets_what_plain_logits_say(family: str) -> None:
    """A soft cap (gemma2), a bias of the head (phi), tied embeddings (gemma2, qwen3)."""
    model = tiny_model(family, layers=2)
    base, space = base_of(model), lora_space(model)
    values = perturbed(space.shared, TASKS, scale=1.0)
    with untouched(model):
        found = forgetting(space, values, base)
    assert close(found, divergences(space, values, model, base), 1e-4)
    assert relative_error(found, found.roll(1)) > 1e-2
    alone = torch.cat([forgetting(space, of_task(values, t), base) for t in range(TASKS)])
    assert close(found, alone, 1e-5)


def test_an_unadapted_lora_has_forgotten_nothing_and_a_trained_one_has() -> None:
    model = tiny_model("llama")
    base, space = base_of(model), lora_space(model)
    start = unadapted(space, TASKS)
    assert (forgetting(space, start, base) < 1e-6).all()
    support = collate(examples(tasks=TASKS, per_task=3))
    trained = TRAINING.adapt(space, start, [support]).values
    found = forgetting(space, trained, base)
    assert (found > 1e-3).all()
    assert close(found, divergences(space, trained, model, base), 1e-4)


def test_all_parameters_are_compared_with_the_base_as_it_was() -> None:
    """On the base's own model object: the head that is stored must not follow what the space installs."""
    model = tiny_model("gemma2", layers=2)
    base, space = base_of(model), all_space(model)
    assert (forgetting(space, per_task(space.shared, 1), base) < 1e-6).all()
    values = perturbed(frozen_copy(space.shared), 2, scale=0.5)
    with untouched(model):
        found = forgetting(space, values, base)
    assert close(found, divergences(space, values, model, base), 1e-4)
    assert (found > 1e-2).all()


@pytest.mark.parametrize(("rows", "chunk"), [(1, 1), (2, 3), (4, 1000), (7, 5)])
def test_how_it_is_cut_up_changes_nothing(monkeypatch: pytest.MonkeyPatch, rows: int, chunk: int) -> None:
    model = tiny_model("llama", layers=2)
    space = lora_space(model)
    values = perturbed(space.shared, TASKS, scale=1.0)
    expected = forgetting(space, values, base_of(model))
    monkeypatch.setattr(module, "ROWS", rows)
    monkeypatch.setattr(module, "CHUNK_ROWS", chunk)
    base = base_of(model)
    assert close(forgetting(space, values, base), expected, 1e-5)


def test_a_cached_trunk_changes_nothing() -> None:
    model, store = tiny_model("llama"), dict[bytes, Tensor]()
    base, layers = base_of(model), {"layers": "last-1"}
    cached = lora_space(model, loss={"cut": 2, "store": store}, **layers)
    values = perturbed(cached.shared, TASKS, scale=1.0)
    found = forgetting(cached, values, base)
    assert close(found, forgetting(lora_space(model, **layers), values, base), 1e-5)
    assert close(found, divergences(cached, values, model, base), 1e-4)
    assert set(store) == {token_key(example.tokens) for example in base.examples}
    for kept in store.values():
        kept.zero_()
    assert relative_error(forgetting(cached, values, base), found) > 1e-2, "the store is what was read"
