import math

import pytest
import torch

from helpers import (
    Tasks,
    close,
    examples,
    frozen_copy,
    lora_space,
    of_task,
    own_names,
    permuted,
    perturbed,
    reference_model,
    relative_error,
    same,
    untouched,
)
from innerloop.data.batches import collate, mask_seed, with_masks
from innerloop.data.tasks import Batch, TaskBatch
from innerloop.errors import UserError
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import METHODS
from innerloop.numerics.optimizers import AdamW, Sgd
from innerloop.numerics.tensors import TensorSet, per_task, zeros_like
from innerloop.spaces.lora import (
    LoraSettings,
    LoraSpace,
    TokenSpan,
    chosen_layers,
    dropout_mask,
    find_targets,
    fresh_lora,
)
from innerloop.spaces.loss import AnswerLoss
from reference import naive
from tiny import FAMILIES, tiny_model

TASKS = 3


def batch(seed: int = 0) -> Batch:
    """Three ragged tasks; each has another number of labels."""
    return Tasks(tasks=TASKS, seed=seed).batch.support[0]


def gradient(space: LoraSpace, values: TensorSet, batch: Batch) -> TensorSet:
    _, found = space.loss_and_gradient(values, batch)
    assert found is not None
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradient_are_peft_models_one_task_at_a_time(family: str) -> None:
    space = lora_space(tiny_model(family, layers=2))
    values = perturbed(space.shared, TASKS)
    losses, found = space.loss_and_gradient(values, batch())
    assert found is not None
    for task, support in enumerate(Tasks(tasks=TASKS).support[0]):
        model = reference_model(space, {name: value[task] for name, value in values.items()})
        assert naive.loss(model, support).item() == pytest.approx(losses[task].item(), rel=1e-5)
        expected = own_names(naive.gradient(model, support))
        assert close({name: value[task] for name, value in found.items()}, expected)
        swapped = {name: value[(task + 1) % TASKS] for name, value in found.items()}
        assert not close(swapped, expected, 0.1)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True},
        {"lora_alpha": 1.0, "r": 4},
        {"target_modules": ("q_proj", "v_proj"), "layers": "last-1"},
        {"target_modules": "model.layers.1.mlp.up_proj"},
        {"layers": (0,)},
    ],
)
def test_the_settings_mean_what_pefts_mean(settings: dict) -> None:
    model = tiny_model("llama", layers=2)
    space = lora_space(model, **settings)
    reference = reference_model(space, space.shared)
    tokens = batch().tokens.flatten(0, 1)
    with space.installed(per_task(space.shared, TASKS)) as installed, torch.no_grad():
        logits = installed(input_ids=tokens).logits
        assert close(logits, reference(input_ids=tokens).logits)
        wrong = lora_space(model, **settings | {"lora_alpha": 7.0})
    with wrong.installed(per_task(space.shared, TASKS)) as installed:
        assert relative_error(installed(input_ids=tokens).logits, logits) > 1e-3


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "phi3"])
def test_tasks_in_one_forward_are_as_many_forwards(family: str) -> None:
    """Law 1."""
    space = lora_space(tiny_model(family, layers=2))
    values, together = perturbed(space.shared, TASKS), batch()
    losses, found = space.loss_and_gradient(values, together)
    assert found is not None
    for task in range(TASKS):
        loss, alone = space.loss_and_gradient(of_task(values, task), together.select(task, task + 1))
        assert alone is not None
        assert loss.item() == pytest.approx(losses[task].item(), rel=1e-5)
        assert close(of_task(found, task), alone)
        _, others = space.loss_and_gradient(of_task(values, (task + 1) % TASKS), together.select(task, task + 1))
        assert not close(of_task(found, task), others or {}, 0.1)


def test_permuted_tasks_have_permuted_gradients() -> None:
    """Law 1."""
    space, order = lora_space(tiny_model("qwen3", layers=2)), [2, 0, 1]
    values, tasks = perturbed(space.shared, TASKS), Tasks(tasks=TASKS).batch
    straight = gradient(space, values, tasks.support[0])
    mixed = gradient(space, {n: v[order] for n, v in values.items()}, permuted(tasks, order).support[0])
    assert close(mixed, {name: value[order] for name, value in straight.items()})
    assert not close(mixed, straight, 0.1)


@pytest.mark.parametrize("optimizer", [Sgd(lr=0.3, clip=0.2), AdamW(lr=0.01, clip=0.2)])
def test_a_task_descends_the_same_alone_and_in_company(optimizer: Sgd | AdamW) -> None:
    space, steps = lora_space(tiny_model("llama", layers=2)), [batch(seed) for seed in (1, 2, 3)]
    together = space.fork(per_task(space.shared, TASKS))
    state = optimizer.init(together)
    for step in steps:
        space.descend(together, state, step, optimizer)
    for task in range(TASKS):
        alone = space.fork(per_task(space.shared, 1))
        state = optimizer.init(alone)
        for step in steps:
            space.descend(alone, state, step.select(task, task + 1), optimizer)
        # AdamW divides by gradients: where those are small, float32 noise of 1e-7 grows
        assert close(alone, of_task(together, task), 1e-5 if isinstance(optimizer, Sgd) else 1e-4)
        assert not close(alone, of_task(together, (task + 1) % TASKS), 1e-2)


def test_padding_changes_nothing() -> None:
    space, tasks = lora_space(tiny_model("gemma3", layers=2)), Tasks(tasks=TASKS)
    values, short = perturbed(space.shared, TASKS), batch()
    longer = [[*examples, max(examples, key=lambda e: len(e.tokens))] for examples in tasks.support[0]]
    stretched = [e._replace(tokens=e.tokens * 3) for e in longer[0][-1:]]
    padded = collate([examples[:-1] + stretched for examples in longer]).tokens.shape[-1]
    wide = Batch(
        tokens=torch.nn.functional.pad(short.tokens, (0, padded - short.tokens.shape[-1]), value=9),
        scored_rows=short.scored_rows // short.tokens.shape[-1] * padded + short.scored_rows % short.tokens.shape[-1],
        row_task=short.row_task,
        examples=short.examples,
    )
    assert padded > short.tokens.shape[-1]
    assert close(gradient(space, values, wide), gradient(space, values, short))


def test_fresh_lora_is_pefts_initialization() -> None:
    model = tiny_model("llama")
    settings = LoraSettings(r=16, lora_alpha=32)
    targets = find_targets(model, settings)
    values = fresh_lora(targets, settings, seed=3)
    assert same(values, fresh_lora(targets, settings, seed=3))
    assert not same(values, fresh_lora(targets, settings, seed=4))
    reference = own_names(naive.trainable(naive.with_lora(model, values, settings)))
    assert {name: value.shape for name, value in values.items()} == {n: v.shape for n, v in reference.items()}
    for name, value in values.items():
        if name.endswith("lora_B"):
            assert not value.any()
            continue
        bound = 1 / math.sqrt(value.shape[1])
        assert value.abs().max() <= bound
        assert value.std() == pytest.approx(bound / math.sqrt(3), rel=0.15)


def test_a_gaussian_start_is_pefts() -> None:
    from peft import LoraConfig, get_peft_model

    model, settings = tiny_model("llama"), LoraSettings(r=16, init_lora_weights="gaussian")
    values = fresh_lora(find_targets(model, settings), settings, seed=3)
    config = LoraConfig(r=16, target_modules="all-linear", init_lora_weights="gaussian", task_type="CAUSAL_LM")
    torch.manual_seed(0)
    theirs = dict(get_peft_model(model, config).named_parameters())

    def spread(side: str) -> tuple[float, float]:
        ours = torch.cat([value.flatten() for name, value in values.items() if name.endswith(side)])
        peft = torch.cat([value.detach().flatten() for name, value in theirs.items() if f"{side}.default" in name])
        return float(ours.std()), float(peft.std())

    ours, peft = spread("lora_A")  # some 10,000 numbers each
    assert ours == pytest.approx(peft, rel=0.05)
    assert ours == pytest.approx(1 / 16, rel=0.05)
    assert spread("lora_B") == (0, 0)
    uniform = fresh_lora(find_targets(tiny_model("llama"), settings), LoraSettings(r=16), seed=3)
    assert all(float(value.std()) > 0.07 for name, value in uniform.items() if name.endswith("lora_A"))  # the control


def test_a_fresh_lora_changes_no_logit() -> None:
    model = tiny_model("llama", layers=2)
    space = LoraSpace(model, AnswerLoss(model), LoraSettings(r=4), seed=0)
    tokens = batch().tokens.flatten(0, 1)
    with torch.no_grad():
        own = model(input_ids=tokens).logits
    with space.installed(per_task(space.shared, TASKS)):
        assert torch.equal(model(input_ids=tokens).logits, own)


def test_targets_are_linear_modules_of_the_chosen_layers() -> None:
    model = tiny_model("llama")

    def found(**settings: object) -> list[str]:
        return list(find_targets(model, LoraSettings(**settings)))  # pyright: ignore[reportArgumentType]

    assert len(found()) == 3 * 7
    assert not any("lm_head" in path for path in found())
    assert found(target_modules=("q_proj",), layers="last-2") == [f"model.layers.{i}.self_attn.q_proj" for i in (1, 2)]
    assert found(target_modules="q_proj", layers=(2, 0)) == [f"model.layers.{i}.self_attn.q_proj" for i in (0, 2)]
    assert found(target_modules="model.layers.1.mlp.up_proj") == ["model.layers.1.mlp.up_proj"]


def test_every_target_that_matches_nothing_is_named_with_a_near_one() -> None:
    with pytest.raises(UserError) as caught:
        find_targets(tiny_model("llama"), LoraSettings(target_modules=("q_prj", "v_proj", "proj")))
    assert [fault.value for fault in caught.value.faults] == ["q_prj", "proj"]
    assert 'did you mean "q_proj"?' in str(caught.value)
    assert "method.lora.target_modules" in str(caught.value)


def test_no_target_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="nothing would be trained"):
        find_targets(tiny_model("llama"), LoraSettings(target_modules=()))


@pytest.mark.parametrize("tasks", [1, 2])
def test_values_of_another_number_of_tasks_are_refused(tasks: int) -> None:
    """Their rows would be grouped with other tasks' values, without a word."""
    space = lora_space(tiny_model("llama", layers=1))
    values = perturbed(space.shared, tasks)
    with pytest.raises(ValueError, match=f"values of {tasks} tasks for a batch of 3"):
        space.loss_and_gradient(values, batch())
    with pytest.raises(ValueError, match=f"values of {tasks} tasks for a batch of 3"):
        space.hessian_vector_product(values, batch(), values)


@pytest.mark.parametrize("layers", ["last-0", "last-4", "last", "first-2", "", (), (3,), (-1,)])
def test_layers_that_do_not_exist_are_refused(layers: str | tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"method\.lora\.layers"):
        chosen_layers(layers, 3)


def test_layers_are_chosen_by_name_or_index() -> None:
    assert [list(chosen_layers(layers, 3)) for layers in ("all", "last-2", (2, 0, 2))] == [
        [0, 1, 2],
        [1, 2],
        [0, 2],
    ]


def dropped(*, seed: int = 0, step: int = 1, checkpointing: bool = False, rate: float = 0.3) -> tuple[LoraSpace, Batch]:
    space = lora_space(tiny_model("llama", layers=2), lora_dropout=rate, loss={"checkpointing": checkpointing})
    return space, with_masks(Tasks(tasks=TASKS).batch, seed=seed, step=step).support[0]


def test_a_tasks_dropout_is_the_same_alone_and_in_company() -> None:
    space, seeded = dropped()
    values = perturbed(space.shared, TASKS)
    together = gradient(space, values, seeded)
    assert same(together, gradient(space, values, seeded))
    for task in range(TASKS):
        alone = gradient(space, of_task(values, task), seeded.select(task, task + 1))
        assert close(of_task(together, task), alone)
    assert not close(gradient(space, values, dropped(step=2)[1]), together, 0.01)
    assert not close(gradient(space, values, batch()), together, 0.01)


def test_dropout_survives_the_recomputation_of_checkpointing() -> None:
    (plain, seeded), (recomputed, _) = dropped(), dropped(checkpointing=True)
    values = perturbed(plain.shared, TASKS)
    assert close(gradient(recomputed, values, seeded), gradient(plain, values, seeded))


def test_dropout_ends_with_training() -> None:
    (space, seeded), (without, _) = dropped(), dropped(rate=0.0)
    values, tokens = per_task(space.shared, TASKS), seeded.tokens.flatten(0, 1)
    logits = []
    for each in (space, without):
        with each.installed(values) as model:
            logits.append(model(input_ids=tokens).logits)
    assert torch.equal(*logits)


def layouts(names: tuple[str, ...] = ("a", "b", "c")) -> dict[str, TaskBatch]:
    """The same tasks with the same masks: padded, packed with fillers, and one behind the other."""

    def batches(**layout: bool) -> TaskBatch:
        each = [examples(tasks=TASKS, per_task=3, longest_prompt=40, seed=seed) for seed in (1, 2, 3)]
        first, second, query = (collate(some, **layout) for some in each)
        return with_masks(TaskBatch(names, [first, second], query), seed=5, step=2)

    found = {"padded": batches(), "even": batches(packed=True), "ragged": batches(packed=True, even=False)}
    assert [found[name].support[0].packing is None for name in found] == [True, False, False]
    return found


def outer_of(space: LoraSpace, tasks: TaskBatch, tasks_per_forward: int) -> dict[str, torch.Tensor]:
    method = METHODS["fomaml-lora"].rule(inner=InnerLoop(steps=2, optimizer=Sgd(lr=0.1)))
    into = zeros_like(space.shared)
    for chunk in tasks.split(tasks_per_forward):
        method.outer_gradient(space, per_task(space.shared, len(chunk.names)), chunk, into)
    return into


@pytest.mark.parametrize("layout", ["padded", "even", "ragged"])
def test_dropouts_outer_gradient_is_that_of_any_chunking_and_layout(layout: str) -> None:
    """Masks belong to an example and a token. A mask of another example, or without one, gives another gradient."""
    space = lora_space(tiny_model("llama", layers=2), lora_dropout=0.3)
    tasks = layouts()
    expected = outer_of(space, tasks["padded"], TASKS)
    for tasks_per_forward in range(1, TASKS + 1):
        assert close(outer_of(space, tasks[layout], tasks_per_forward), expected)
    others = layouts(("b", "a", "c"))[layout]  # the control: each has the other's masks
    assert not close(outer_of(space, others, TASKS), expected, 0.01)
    assert not close(outer_of(lora_space(tiny_model("llama", layers=2)), tasks[layout], TASKS), expected, 0.01)


@pytest.mark.parametrize("layout", ["padded", "even", "ragged"])
def test_an_examples_mask_stays_its_own_in_a_part_of_the_batch(layout: str) -> None:
    space, whole = lora_space(tiny_model("llama", layers=2), lora_dropout=0.3), layouts()[layout].support[0]
    values, parts = per_task(space.shared, TASKS), whole.parts(1)
    assert len(parts) == 3
    found = [gradient(space, values, part) for part in parts]
    total = {name: sum((each[name] for each in found), torch.zeros(())) for name in values}
    assert close(total, gradient(space, values, whole))


def test_padding_and_fillers_draw_nothing() -> None:
    x = torch.zeros(2, 4, 5)
    spans = [TokenSpan(3, 0, 2), TokenSpan(4, 4, 3)]
    mask = dropout_mask(x, spans, rate=0.5, layer="layer").view(8, 5)
    assert (mask[[2, 3, 7]] == 1).all()
    assert set(mask[[0, 1, 4, 5, 6]].unique().tolist()) == {0.0, 2.0}
    moved = dropout_mask(x, [TokenSpan(4, 1, 3)], rate=0.5, layer="layer").view(8, 5)
    assert torch.equal(moved[1:4], mask[4:7])


def test_masks_have_a_mean_of_one_and_differ_by_task_step_example_and_layer() -> None:
    drawn = [(1, "a", 0, 0), (1, "b", 0, 0), (2, "a", 0, 0), (1, "a", 1, 0), (1, "a", 0, 1)]
    seeds = [mask_seed(0, step, name, inner_step, example) for step, name, inner_step, example in drawn]

    def masks_of(seeds: list[int], layer: str = "layer") -> torch.Tensor:
        spans = [TokenSpan(seed, 300 * place, 300) for place, seed in enumerate(seeds)]
        masks = dropout_mask(torch.empty(300 * len(seeds), 40), spans, rate=0.25, layer=layer)
        return masks.view(-1, 300, 40)

    masks = masks_of(seeds)
    assert masks.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
    assert masks.mean() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(masks_of(seeds[1:2])[0], masks[1])
    other = masks_of(seeds[:1], "another layer")[0]
    for left, right in [(masks[i], masks[j]) for i in range(5) for j in range(i)] + [(masks[0], other)]:
        assert (left == right).float().mean() == pytest.approx(0.25**2 + 0.75**2, abs=0.02)


def test_a_bfloat16_model_has_float32_values_and_gradients() -> None:
    exact = lora_space(tiny_model("llama", layers=2))
    space = lora_space(tiny_model("llama", layers=2).bfloat16())
    values = per_task(space.shared, TASKS)
    found = gradient(space, values, batch())
    assert {v.dtype for v in (*space.shared.values(), *found.values())} == {torch.float32}
    assert close(found, gradient(exact, values, batch()), 0.2)
    fork = space.fork(values)
    before = frozen_copy(fork)
    with untouched(space.model):
        space.descend(fork, Sgd(lr=1e-5).init(fork), batch(), Sgd(lr=1e-5))
    assert all((fork[name] != before[name]).float().mean() > 0.5 for name in fork)


def test_a_model_that_was_not_frozen_gives_the_same_gradient() -> None:
    space = lora_space(tiny_model("llama", layers=2).requires_grad_(True))
    expected = gradient(lora_space(tiny_model("llama", layers=2)), perturbed(space.shared, TASKS), batch())
    with untouched(space.model):
        assert close(gradient(space, perturbed(space.shared, TASKS), batch()), expected)


def test_the_gradient_of_a_vanishes_where_b_is_zero() -> None:
    """Why every test here sets B: this is what it would be blind to."""
    space = lora_space(tiny_model("llama", layers=2))
    values = per_task(space.shared, TASKS)
    zero_B = zeros_like(values) | {name: value for name, value in values.items() if name.endswith("lora_A")}
    for name, value in gradient(space, zero_B, batch()).items():
        assert bool(value.any()) == name.endswith("lora_B")
