"""The parts of a run, from its config and a model: a space, and the trainer of its shared values.

make_space       a space at its starting values
make_trainer     what takes outer steps on it
fresh_rates_of   the rates of its inner loop, where they are learned
own_adaptation   a run's own inner loop, for examples of a task that it hasn't seen
lowest_trained   the lowest trained layer: outputs of those below are computed once per example
companies_of     which examples go through those layers together
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from innerloop.config.schema import RunConfig
from innerloop.data.encoding import EncodedTask
from innerloop.data.tasks import token_key
from innerloop.engine.hidden_states import HiddenStates
from innerloop.engine.rate_learning import RateLearning
from innerloop.engine.schedules import first_steps, joint_steps, rate_of
from innerloop.engine.trainer import Trainer
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.inner_rates import InnerRates, fresh_rates
from innerloop.learning.methods import Method
from innerloop.loading.architecture import decoder_layers
from innerloop.spaces.kinds import SpaceOptions
from innerloop.spaces.lora import chosen_layers
from innerloop.spaces.space import ParameterSpace
from innerloop.spaces.trunk import TOGETHER, Companies, TrunkExample


def make_space(
    config: RunConfig,
    model: Any,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    hidden: HiddenStates | None = None,
    companies: Companies | None = None,
) -> ParameterSpace:
    """A space at its starting values: the model's own weights, or a fresh LoRA.

    >>> space = make_space(load_config("run.yaml"), model)
    >>> space.trained().dtype
    'float32'

    device, dtype      of the forward, where the model's own aren't that: an earlier space may have moved its tensors
    hidden, companies  states below the cut, and which examples are computed together: shared with other spaces
    """
    memory, cut, store = config.memory, lowest_trained(config, model), None
    if cut:
        hidden = HiddenStates() if hidden is None else hidden
        store = hidden.below(model, cut, most=memory.trunk_cache_bytes)
    options = SpaceOptions(
        lora=config.method.lora_settings(),
        seed=config.seed,
        device=device,
        dtype=dtype,
        checkpointing=memory.checkpointing,
        logit_rows=memory.logit_rows,
        lean=memory.lean,
        offload=memory.offload,
        cut=cut,
        store=store,
        companies=companies,
    )
    return config.method.row.space.make(model, options)


def make_trainer(config: RunConfig, space: ParameterSpace, *, tasks_per_forward: int | None = None) -> Trainer:
    """What takes outer steps on the space's shared values.

    >>> config = load_config("run.yaml")
    >>> trainer = make_trainer(config, make_space(config, model))
    >>> trainer.step(task_batch).step
    1

    tasks_per_forward   at most; None = all of a step's
    """
    method = _method(config, space)
    rates, lr = method.loop and method.loop.rates, config.outer.rates_lr
    return Trainer(
        space,
        method,
        config.outer.build_optimizer(eight_bit=config.memory.lean),
        tasks_per_forward=tasks_per_forward,
        seed=config.seed,
        skip_non_finite=config.outer.on_non_finite == "skip",
        rate_of=rate_of(config.outer.schedule, warmup=config.outer.warmup, steps=config.outer.steps),
        ema=config.outer.ema,
        rates=RateLearning(rates, lr=lr) if rates and lr else None,
        joint_steps=joint_steps(config.outer),
    )


def own_adaptation(config: RunConfig) -> InnerLoop:
    """The run's inner loop, or the default of its kind of space.

    >>> own_adaptation(load_config("run.yaml")).steps
    2
    """
    section, row, in_context = config.method.inner, config.method.row, config.tasks.prompt == "in-context"
    if section is None:
        return row.adaptation_in_context if in_context else row.adaptation
    whole = section.batch_size >= config.tasks.support and not in_context  # of any number of examples, then
    return replace(section.build(), batch_size=None if whole else section.batch_size)


def fresh_rates_of(config: RunConfig, space: ParameterSpace) -> InnerRates | None:
    """Of the inner loop, as learning starts; None where none are learned.

    >>> config = load_config("run.yaml", ["method.inner.learned_rates=tensor"])
    >>> rates = fresh_rates_of(config, make_space(config, model))
    >>> {float(value) for value in rates.logs.values()}
    {0.0}
    """
    inner = config.method.inner
    if inner is None or inner.learned_rates in (None, "none"):
        return None
    return fresh_rates(inner.learned_rates, space.shared, steps=inner.most)


def _method(config: RunConfig, space: ParameterSpace) -> Method:
    """The rule, with its inner loop's warm-up in steps of this run, and with its rates where those are learned."""
    rule, inner = config.method.build(), config.method.inner
    if inner is None or rule.loop is None:
        return rule
    warmup = first_steps(inner.warmup, config.outer.steps)
    loop = replace(rule.loop, warmup=warmup, rates=fresh_rates_of(config, space))
    return replace(rule, inner=loop)  # pyright: ignore[reportUnknownVariableType, reportArgumentType]


def lowest_trained(config: RunConfig, model: Any) -> int:
    """The lowest trained layer: outputs of those below are computed once per example. 0 = of none."""
    lora = config.method.lora_settings()
    if lora is None or not config.memory.trunk_cache:
        return 0
    return min(chosen_layers(lora.layers, len(decoder_layers(model))))


def companies_of(
    config: RunConfig, model: Any, tasks: Iterable[EncodedTask], *, device: torch.device, dtype: torch.dtype
) -> Companies:
    """Which examples go through the layers below the cut together; as many as there is room to keep.

    device, dtype: of the forward.
    """
    width: int = model.get_input_embeddings().weight.shape[1]
    kept = [
        [TrunkExample(token_key(each.tokens), each.tokens) for each in some]
        for task in {id(task): task for task in tasks}.values()
        for some in (task.pool, task.test)
    ]
    room = config.memory.trunk_cache_bytes // (width * dtype.itemsize)
    return Companies(kept, most=TOGETHER[device.type], room=room)
