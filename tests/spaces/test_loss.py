from typing import Any

import pytest
import torch
from torch import nn

from helpers import Tasks, all_space, close, examples, lora_space, perturbed, relative_error, untouched
from innerloop.data.batches import collate
from innerloop.data.token_ids import Encoded
from innerloop.spaces.loss import AnswerLoss
from reference import naive
from tiny import FAMILIES, tiny_model

TASKS = 3


def losses(model: nn.Module, tasks: list[list[Encoded]]) -> torch.Tensor:
    return torch.stack([naive.loss(model, task).detach() for task in tasks])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("twice", [False, True])
def test_the_loss_is_the_cross_entropy_of_the_models_own_logits(family: str, twice: bool) -> None:
    model = tiny_model(family, layers=2)
    with untouched(model):
        found = AnswerLoss(model)(Tasks(tasks=TASKS).batch.support[0], twice=twice)
    expected = losses(model, Tasks(tasks=TASKS).support[0])
    assert close(found.detach(), expected)
    assert not close(found.detach(), expected.roll(1), 1e-3)


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi", "gpt_neox"])
@pytest.mark.parametrize("kind", ["lora", "all"])
def test_checkpointing_changes_no_number(kind: str, family: str) -> None:
    """Law 5, a tied head (gemma2) included; the recomputation has to read the installed values."""
    results = []
    for checkpointing in (False, True):
        loss = {"checkpointing": checkpointing}
        model = tiny_model(family, layers=3)
        space = lora_space(model, loss=loss) if kind == "lora" else all_space(model, **loss)
        tasks = space.limit or TASKS
        with untouched(model):
            found, gradient = space.loss_and_gradient(
                perturbed(space.shared, tasks), Tasks(tasks=tasks).batch.support[0]
            )
        results.append({"losses": found, **(gradient or {})})
    assert close(results[1], results[0])


def test_checkpointing_recomputes() -> None:
    """The negative control of the test above: that something was recomputed at all."""
    counts = []
    for checkpointing in (False, True):
        model, calls = tiny_model("llama", layers=2), []
        space = lora_space(model, loss={"checkpointing": checkpointing})
        handle = model.model.layers[1].mlp.up_proj.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        space.loss_and_gradient(perturbed(space.shared, TASKS), Tasks(tasks=TASKS).batch.support[0])
        handle.remove()
        counts.append(len(calls))
    assert counts == [1, 2]


def test_a_recomputation_with_other_values_gives_another_gradient() -> None:
    """What a backward pass after the values were put back would compute (and never report)."""
    space = lora_space(tiny_model("llama", layers=2), loss={"checkpointing": True})
    values, batch = perturbed(space.shared, TASKS, scale=2.0), Tasks(tasks=TASKS).batch.support[0]
    leaves, others = (
        {name: value.clone().requires_grad_() for name, value in each.items()}
        for each in (values, perturbed(space.shared, TASKS, seed=8, scale=2.0))
    )
    with space._hooked(leaves, None):
        loss = space.loss(batch).sum()
    with space._hooked(others, None):
        late = torch.autograd.grad(loss, list(leaves.values()))
    _, gradient = space.loss_and_gradient(values, batch)
    assert gradient is not None
    assert not close(dict(zip(gradient, late, strict=True)), gradient, 0.05)


def test_scores_are_nats_and_greedy_answers_of_each_example() -> None:
    """Against the definition: one example at a time, and what model.generate writes."""
    model, tasks = tiny_model("llama", layers=2), examples(tasks=TASKS, per_task=3)
    for task in tasks[::2]:
        task[1] = greedy(model, task[1])
    around = [(0, 1), (1, 2), (2, 1)]  # of an example, as far as it is long enough
    for task in tasks:
        for b, (prefix, end) in enumerate(around):
            scored = len(task[b].scored)
            task[b] = task[b]._replace(prefix=prefix, end=end) if scored > prefix + end else task[b]._replace(end=0)
    score = AnswerLoss(model).score(collate(tasks))
    for t, task in enumerate(tasks):
        for b, example in enumerate(task):
            stopping = naive.answer_nats(model, example, stopping=True) if example.end else 0.0
            assert score.nats[t, b].item() == pytest.approx(naive.answer_nats(model, example), rel=1e-4)
            assert score.stop_nats[t, b].item() == pytest.approx(stopping, rel=1e-4)
            assert bool(score.exact[t, b]) == (greedy(model, example).tokens == example.tokens)
    assert len({(example.prefix, example.end) for task in tasks for example in task}) == 4
    assert score.exact[::2, 1].all()
    assert not score.exact.all()


def greedy(model: Any, example: Encoded) -> Encoded:
    """The example with the answer that greedy decoding gives."""
    prompt = example.prompt
    answer = len(example.tokens) - prompt
    settings = {"max_new_tokens": answer, "min_new_tokens": answer, "do_sample": False, "eos_token_id": None}
    tokens = torch.tensor([example.tokens[:prompt]])
    written = model.generate(tokens, attention_mask=torch.ones_like(tokens), **settings)[0].tolist()
    return example._replace(tokens=tuple(written))


def test_scores_with_installed_values_are_the_tasks_own() -> None:
    space = lora_space(tiny_model("llama", layers=2))
    values, batch = perturbed(space.shared, TASKS, scale=1.0), Tasks(tasks=TASKS).batch.support[0]
    assert isinstance(space.loss, AnswerLoss)
    with space.installed(values):
        adapted = space.loss.score(batch)
    own = space.loss.score(batch)
    assert not adapted.nats.requires_grad
    assert relative_error(adapted.nats, own.nats) > 1e-2
    found, _ = space.loss_and_gradient(values, batch)
    count = torch.tensor([[len(example.scored) for example in task] for task in batch.examples])
    total = adapted.nats * (count - 1) + adapted.stop_nats  # the last token of each is its end
    assert close(total.sum(1) / count.sum(1), found)
    assert not close(adapted.nats.mean(1), found, 1e-3), "training weighs tokens alike, a score examples"


def test_adapted_models_generate_together_as_they_do_alone() -> None:
    """T tasks' values in one generate, ragged prompts padded on the left, = T separate ones."""
    space = lora_space(tiny_model("llama", layers=2))
    values = perturbed(space.shared, TASKS, scale=3.0)
    prompts = [torch.tensor(task[0].tokens) for task in examples(tasks=TASKS, per_task=1, seed=3)]
    length = max(map(len, prompts))
    assert len({len(prompt) for prompt in prompts}) > 1
    padded = torch.stack([torch.nn.functional.pad(p, (length - len(p), 0)) for p in prompts])
    mask = torch.stack([torch.nn.functional.pad(torch.ones_like(p), (length - len(p), 0)) for p in prompts])
    settings: dict[str, Any] = {
        "max_new_tokens": 8,
        "min_new_tokens": 8,
        "do_sample": False,
        "pad_token_id": 0,
    }
    with space.installed(values) as model:
        together = model.generate(padded, attention_mask=mask, **settings)[:, length:]  # pyright: ignore
    alone = []
    for task, prompt in enumerate(prompts):
        with space.installed({name: value[task : task + 1] for name, value in values.items()}) as model:
            alone.append(
                model.generate(prompt[None], attention_mask=torch.ones(1, len(prompt)), **settings)[0, len(prompt) :]
            )  # pyright: ignore
    assert torch.equal(together, torch.stack(alone))
    unadapted = space.model.generate(padded, attention_mask=mask, **settings)[:, length:]  # pyright: ignore
    assert not torch.equal(together, unadapted)
