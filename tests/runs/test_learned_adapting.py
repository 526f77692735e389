"""Adapting to a new task: what it changes, what is generated and scored, and what other libraries read."""

from dataclasses import replace
from pathlib import Path

import pytest

from helpers import close, frozen_copy, relative_error, same, untouched
from innerloop.artifacts.export import reload_logits
from innerloop.data.batches import collate
from innerloop.data.tasks import Example
from innerloop.engine.session import prepare
from innerloop.errors import UserError
from innerloop.evaluation.kshot import adapt, draw_support, tokens_per_forward
from innerloop.learning.inner_loop import InnerLoop
from innerloop.loading.architecture import decoder_layers
from innerloop.numerics.optimizers import AdamW
from innerloop.numerics.tensors import TensorSet, clone, per_task
from innerloop.spaces.kinds import LORA
from record_files import write
from small_runs import (
    ROWS,
    SUPPORT,
    TEST,
    Runs,
    World,
    logits_of,
    records,
    small_run,
    tokens_of,
)

ONE_INITIALIZATION = ["meta-lora", "fomaml", "joint-lora", "reptile-lora", "maml-lora"]
BY_HEART = InnerLoop(steps=30, optimizer=AdamW(lr=0.01))
PROMPT, ANSWER = "say it:", " yes"


@pytest.mark.parametrize("method", ONE_INITIALIZATION)
def test_adapting_lowers_the_support_loss_and_leaves_the_rest(runs: Runs, method: str) -> None:
    learned = runs(method)
    shared = frozen_copy(learned.space.shared)
    with untouched(learned.model.model):
        adapted = learned.adapt(SUPPORT)
        reached = adapted.loss(SUPPORT)
    assert len(adapted.losses) == learned.inner.steps
    assert list(adapted.losses) == sorted(adapted.losses, reverse=True)
    assert reached < adapted.losses[-1] < adapted.losses[0]
    assert same(learned.space.shared, shared)
    before = learned.adapt(SUPPORT, inner=InnerLoop(steps=0, optimizer=AdamW(lr=1.0)))
    assert before.loss(SUPPORT) == pytest.approx(adapted.losses[0], rel=1e-5)
    assert before.score(SUPPORT)[0] != pytest.approx(adapted.losses[0], rel=1e-3), "a score is of the answers alone"


def test_the_number_of_steps_can_be_another(runs: Runs) -> None:
    learned = runs("meta-lora")
    more = learned.adapt(SUPPORT, steps=learned.inner.steps + 2)
    assert len(more.losses) == learned.inner.steps + 2
    assert same(more.values, learned.adapt(SUPPORT, inner=replace(learned.inner, steps=len(more.losses))).values)
    assert not same(more.values, learned.adapt(SUPPORT).values)


def test_a_run_without_inner_loop_adapts_by_default(runs: Runs) -> None:
    joint = runs("joint-lora")
    default = InnerLoop(steps=LORA.adaptation.steps, optimizer=LORA.adaptation.optimizer)
    assert joint.inner == default
    plain, said = joint.adapt(SUPPORT), joint.adapt(SUPPORT, inner=default)
    assert same(plain.values, said.values)
    assert not same(plain.values, joint.adapt(SUPPORT, inner=BY_HEART).values)
    assert runs("meta-lora").inner == runs("meta-lora").config.method.inner.build()  # pyright: ignore


def test_adapting_takes_minibatches_as_training_does(world: World, tmp_path: Path) -> None:
    """batch_size 2 of 3 support examples: the steps read 0-1, 2-0."""
    parts = small_run(world, "fomaml-lora", tmp_path / "parts", {"method.inner.batch_size": 2})
    adapted = parts.adapt(SUPPORT)
    encoded = parts.encoded(SUPPORT)
    batches = [collate([[encoded[0], encoded[1]]]), collate([[encoded[2], encoded[0]]])]
    by_hand = parts.inner.adapt(parts.space, per_task(parts.space.shared, 1), batches)
    assert same(adapted.values, by_hand.values)
    whole = parts.inner.adapt(parts.space, per_task(parts.space.shared, 1), [collate([encoded])])
    assert not same(adapted.values, whole.values)


@pytest.mark.parametrize("size", [2, 3])
def test_evaluation_adapts_as_adapt_does(world: World, tmp_path: Path, size: int) -> None:
    """To the same values, where an inner step of training read some of the support and where it read all of it."""
    learned = small_run(world, "fomaml-lora", tmp_path / "run", {"method.inner.batch_size": size})
    task = prepare(learned.config, model=learned.model).held_out[0]
    found: list[TensorSet] = []
    for k in (2, 3, 5):
        support = draw_support(task, k, seed=1)
        known = {example.id: example for example in task.task.pool}
        served = learned.adapt([known[encoded.id] for encoded in support])

        def look(taken: int, values: TensorSet, _: object) -> None:
            if taken == learned.inner.steps:
                found.append(clone(values))

        adapt(learned.space, learned.inner, [support], [task], look=look)
        assert same(found[-1], served.values)
        whole = learned.adapt([known[e.id] for e in support], inner=replace(learned.inner, batch_size=None))
        assert same(whole.values, served.values) == (size == 3 or k == 2)


@pytest.mark.parametrize("method", ["meta-lora", "fomaml"])
def test_many_examples_are_adapted_to_and_scored_a_bounded_number_of_tokens_at_a_time(runs: Runs, method: str) -> None:
    learned = runs(method)
    many = [{"prompt": f"{n} and {'so on ' * (n % 9)}", "completion": " done" * (n % 3 + 1)} for n in range(60)]
    encoded, taken = learned.encoded(many), list[int]()
    layer = decoder_layers(learned.model.model)[-1]
    handle = layer.register_forward_hook(lambda _, inputs, __: taken.append(inputs[0].shape[:-1].numel()))
    try:
        adapted = learned.adapt(many)
        most, taken[:] = max(taken), []
        found = adapted.score(many)
    finally:
        handle.remove()
    assert sum(len(example.tokens) for example in encoded) > 2 * tokens_per_forward(learned.space.device) >= 2 * most
    start = per_task(learned.space.shared, 1)
    whole = learned.inner.adapt(learned.space, start, [collate([encoded])])
    assert relative_error(adapted.values, whole.values) < 1e-4
    with learned.space.installed(whole.values):
        scores = learned.space.loss.score(collate([encoded]))  # pyright: ignore
    assert adapted.loss(many) == pytest.approx(
        float(learned.space.loss_and_gradient(whole.values, collate([encoded]))[0])
    )
    assert found == pytest.approx((float(scores.nats.mean()), float(scores.exact.float().mean())), rel=1e-4)


@pytest.mark.parametrize("method", ["meta-lora", "fomaml"])
def test_adapted_and_shared_values_are_read_by_peft_and_transformers(runs: Runs, tmp_path: Path, method: str) -> None:
    learned = runs(method)
    adapted, tokens = learned.adapt(SUPPORT, inner=BY_HEART), tokens_of(learned)
    adapted.save_pretrained(tmp_path / "adapted")
    learned.save_pretrained(str(tmp_path / "shared"))
    mine, shared = adapted.values, per_task(learned.space.shared, 1)
    assert close(
        reload_logits(tmp_path / "adapted", tokens, base=learned.model.source), logits_of(learned, mine, tokens)
    )
    assert close(
        reload_logits(tmp_path / "shared", tokens, base=learned.model.source), logits_of(learned, shared, tokens)
    )
    assert not close(
        reload_logits(tmp_path / "adapted", tokens, base=learned.model.source), logits_of(learned, shared, tokens), 1e-2
    )
    assert learned.check(tmp_path / "shared", SUPPORT) < 1e-5 < learned.check(tmp_path / "adapted", SUPPORT)


def test_examples_may_be_a_file_or_its_path(runs: Runs, tmp_path: Path) -> None:
    file, learned = write(tmp_path / "new.jsonl", *SUPPORT), runs("joint-lora")
    expected = {example.id for example in learned.encoded(SUPPORT)}
    assert {e.id for e in learned.encoded(file)} == {e.id for e in learned.encoded(str(file))} == expected
    ready = [Example(record["prompt"], record["completion"]) for record in SUPPORT]
    assert learned.encoded(ready) == learned.encoded(SUPPORT)


def test_new_examples_are_cut_as_those_of_training(world: World, tmp_path: Path) -> None:
    """With the hidden states below the cut kept by example, two lengths of one example would mix."""
    cut = {"tasks.max_length": 9, "tasks.on_too_long": "truncate", "method.lora.layers": "last-1"}
    cut |= {"tasks.query": ROWS - TEST - 3}
    plain = small_run(world, "fomaml-lora", tmp_path / "plain", cut)
    cached = small_run(world, "fomaml-lora", tmp_path / "cached", cut | {"memory.trunk_cache": True})
    one, other = (learned.adapt(records("bob")) for learned in (plain, cached))
    assert one.losses == pytest.approx(other.losses, rel=1e-5)
    assert max(len(example.tokens) for example in cached.encoded(records("bob"))) == 9
    dropping = small_run(world, "joint-lora", tmp_path / "drop", {"tasks.max_length": 16, "tasks.on_too_long": "drop"})
    long = {"prompt": "x" * 20, "completion": " y"}
    assert len(dropping.encoded([*SUPPORT, long])) == 3
    with pytest.raises(UserError, match=r"tasks\.max_length: every example is too long"):
        dropping.adapt([long])
