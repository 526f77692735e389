"""Which keys a run reads, and which values of them go together.

Objection    what is wrong about some keys
unread       the keys that a run with these values has no use for
conflicts    values that can't go together

Both look at a flat view of a config, dotted key -> value, with the defaults filled in.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from innerloop.data.suites import SUITES
from innerloop.learning.methods import METHODS, Method

Values = Mapping[str, Any]

SIZED = [name for name, suite in SUITES.items() if suite.instances]  # suites whose number of tasks can be chosen
METHOD = "method.name"
OPTIMIZERS = ("method.inner.optimizer", "outer.optimizer")
LORAPLUS = "method.inner.optimizer.loraplus_lr_ratio"
STEPS, LEARNED_RATES = "method.inner.steps", "method.inner.learned_rates"
INNER_OPTIMIZER = "method.inner.optimizer.name"
A_FORWARD, A_STEP, TRUNK_CACHE = "memory.tasks_per_forward", "outer.tasks_per_step", "memory.trunk_cache"
JOINT_STEPS = "outer.joint_steps"
LEAN, OFFLOAD, DTYPE = "memory.lean", "memory.offload", "model.dtype"
INNER_OPTIONS = frozenset[str]().union(*(row.rule.takes for row in METHODS.values()))
SUPPORT, QUERY, EXAMPLES = "tasks.support", "tasks.query", "tasks.examples_per_task"
EVALUATE, EVALUATE_EVERY, VALIDATION = "evaluate", "evaluate.every", "tasks.validation"
PROMPT = "tasks.prompt"


class Objection(NamedTuple):
    """keys: all it is about. An unread key comes first; a conflict is shown at the first key that was set."""

    keys: tuple[str, ...]
    problem: str
    expected: str


def lora_sibling(method: str) -> str:
    """The method with the same rule that trains LoRA; all of those where there is none."""
    own, lora = METHODS[method], {name: row for name, row in METHODS.items() if row.space.reads_lora}
    like = own.rule, own.one_task, own.prompt
    same = [name for name, row in lora.items() if (row.rule, row.one_task, row.prompt) == like]
    return method if method in lora else " or ".join(same or lora)


def unread(values: Values) -> Iterator[Objection]:
    """Keys and sections without a reader in this run, whether they were set or not."""
    if values.get(METHOD) in METHODS:
        yield from _unread_by_method(values[METHOD])
        if _is_one_prompt(values):
            problem = f"a prompt has {SUPPORT} examples and one more, and every answer is learned from"
            yield Objection((QUERY, PROMPT, METHOD), problem, "leave it out")
    for section in OPTIMIZERS:
        if values.get(f"{section}.name") == "sgd":
            for option in ("betas", "eps", "weight_decay"):
                keys = (f"{section}.{option}", f"{section}.name")
                yield Objection(keys, f"sgd has no {option}", "name: adamw; or leave it out")
    if values.get(LEARNED_RATES, "none") == "none" or not _takes(values, "learned_rates"):
        keys = ("outer.rates_lr", LEARNED_RATES)
        yield Objection(keys, f"read only where {LEARNED_RATES} are learned", "tensor, tensor-step or entry there")
    if values.get("tasks.suite") is None:
        yield _without("tasks.difficulty", "tasks.suite", "a built-in suite")
    if values.get("tasks.folder") is None:
        yield _without("tasks.columns", "tasks.folder", "a folder")
        yield _without("tasks.verifier", "tasks.folder", "a folder")
    if values.get("tasks.suite") not in SIZED:
        yield _without("tasks.instances", "tasks.suite", f"the suite {' or '.join(SIZED)}")
    yield from _unread_without_validation(values)
    if values.get(TRUNK_CACHE) is not True:
        keys = ("memory.trunk_cache_gb", TRUNK_CACHE)
        yield Objection(keys, f"read only with {TRUNK_CACHE}: true", f"leave it out, or true in {TRUNK_CACHE}")


def conflicts(values: Values) -> Iterator[Objection]:
    """Values that contradict each other."""
    yield from _source_conflicts(values)
    yield from _size_conflicts(values)
    if values.get(METHOD) in METHODS:
        yield from _method_conflicts(values)


def _takes(values: Values, option: str) -> bool:
    return values.get(METHOD) not in METHODS or option in METHODS[values[METHOD]].rule.takes


def _unread_by_method(name: str) -> Iterator[Objection]:
    row = METHODS[name]
    known = {option for other in METHODS.values() for option in other.rule.options()}
    for option in sorted(known - row.rule.options()):
        readers = [method for method, other in METHODS.items() if option in other.rule.options()]
        problem = f'"{name}" has no inner loop' if option == "inner" else f'"{name}" does not read {option}'
        right = f"leave it out; it is read by {', '.join(readers)}"
        yield Objection((f"method.{option}", METHOD), problem, right)
    unheeded = INNER_OPTIONS - row.rule.takes if "inner" in row.rule.options() else ()
    for option in sorted(unheeded):
        readers = [method for method, other in METHODS.items() if option in other.rule.takes]
        right = f"leave it out; it is read by {', '.join(readers)}"
        yield Objection((f"method.inner.{option}", METHOD), f'"{name}" does not read {option}', right)
    if not row.rule.reads_query:
        problem = f'"{name}" learns from the support set alone and reads no query examples'
        yield Objection((QUERY, METHOD), problem, "leave it out")
    if not row.after_joint:
        problem = f'"{name}" trains {"on one task at a time" if row.one_task else "on all tasks jointly in every step"}'
        right = (
            f"leave it out; it is read by {', '.join(method for method, other in METHODS.items() if other.after_joint)}"
        )
        yield Objection((JOINT_STEPS, METHOD), problem, right)
    if not row.space.reads_lora:
        problem = f'"{name}" trains {row.space.title} and reads no LoRA option'
        right = f"{lora_sibling(name)} as method.name"
        lora = f"{right}, which reads method.lora.r and the rest"
        yield Objection(("method.lora", METHOD), problem, f"{lora}; or leave it out")
        yield Objection((LORAPLUS, METHOD), problem, f"{right}; or leave it out")


def _unread_without_validation(values: Values) -> Iterator[Objection]:
    name = values.get(METHOD)
    if name in METHODS and METHODS[name].one_task:
        problem = f'"{name}" trains one adapter for each task: there is no initialization to adapt to others'
        yield Objection((EVALUATE, METHOD), problem, "leave it out, or a method that shares one initialization")
    elif not values.get(VALIDATION):
        yield _without(EVALUATE, VALIDATION, "tasks to validate on")
    elif EVALUATE_EVERY not in values:
        right = f"a number of steps in {EVALUATE_EVERY}; or leave it out"
        yield Objection((EVALUATE, EVALUATE_EVERY), f"read only with {EVALUATE_EVERY}", right)


def _source_conflicts(values: Values) -> Iterator[Objection]:
    suite, folder = values.get("tasks.suite"), values.get("tasks.folder")
    keys = ("tasks.folder", "tasks.suite")
    if suite is not None and folder is not None:
        yield Objection(keys, "tasks come from a suite or a folder, not from both", "one of the two keys")
    if suite is None and folder is None:
        yield Objection(("tasks", *keys), "there are no tasks", "tasks.suite or tasks.folder")
    if suite is not None and folder is None and values[EXAMPLES] is None:
        right = "a whole number; null, for all there are, goes with tasks.folder"
        yield Objection((EXAMPLES, *keys), "a suite has no end", right)
    both = sorted(set(values["tasks.validation"]) & set(values["tasks.held_out"]))
    if both:
        problem = f"also in tasks.validation: {', '.join(both)}"
        yield Objection(("tasks.held_out", "tasks.validation"), problem, "each task in one of the two lists")


def _size_conflicts(values: Values) -> Iterator[Objection]:
    support, query, pool = values[SUPPORT], values.get(QUERY) or 0, values[EXAMPLES]
    if pool is not None and _is_one_prompt(values):
        if support >= pool:
            problem = f"a prompt larger than the pool: support {support} + 1 of {pool} examples"
            yield Objection((SUPPORT, EXAMPLES, PROMPT, METHOD), problem, f"below {EXAMPLES}")
    elif pool is not None and support + query > pool:
        problem = f"a batch larger than the pool: support {support} + query {query} of {pool} examples"
        keys = (SUPPORT, QUERY, EXAMPLES, METHOD)
        yield Objection(keys, problem, f"at most {EXAMPLES} together")
    size = values.get("method.inner.batch_size")
    if size is not None and size > support:
        problem = f"an inner step takes {size} of the {support} support examples"
        yield Objection(("method.inner.batch_size", SUPPORT), problem, f"at most {SUPPORT}")


def _method_conflicts(values: Values) -> Iterator[Objection]:
    name = values[METHOD]
    row = METHODS[name]
    yield from _steps_conflicts(values, row.rule)
    if values.get("method.inner.train") == "lora-b" and not row.space.reads_lora:
        problem = f'"{name}" trains {row.space.title}, and no LoRA'
        yield Objection(("method.inner.train", METHOD), problem, f"all or last-N, or {lora_sibling(name)} as {METHOD}")
    if row.rule.second_order and values.get(INNER_OPTIMIZER) == "adamw":
        problem = f'"{name}" differentiates through its inner steps, which have to be sgd'
        yield Objection((INNER_OPTIMIZER, METHOD), problem, "sgd")
    if row.space.limit is not None and values[A_FORWARD] != "auto" and values[A_FORWARD] > row.space.limit:
        problem = f'"{name}" trains {row.space.title}: one task per forward pass'
        yield Objection((A_FORWARD, METHOD), problem, f"auto or 1; {lora_sibling(name)} takes many")
    if row.one_task and values[A_STEP] != 1:
        yield Objection((A_STEP, METHOD), f'"{name}" trains on one task at a time', "1")
    if values[TRUNK_CACHE]:
        yield from _trunk_conflicts(values)
    yield from _prompt_conflicts(values)
    if not row.space.trains_base:
        for key in (key for key in (LEAN, OFFLOAD) if values[key]):
            problem = f'"{name}" trains {row.space.title}, a few millions of values: there is little to save'
            yield Objection((key, METHOD), problem, "false, or a method that trains all parameters")
    elif values.get(LEARNED_RATES, "none") != "none":
        for key in (key for key in (LEAN, OFFLOAD) if values[key]):
            problem = "learned rates keep each step's values beside the others, in float32 and on the device"
            yield Objection((key, LEARNED_RATES, METHOD), problem, "false, or none as method.inner.learned_rates")
    elif values[LEAN]:
        yield from _lean_conflicts(values)


def _steps_conflicts(values: Values, rule: type[Method]) -> Iterator[Objection]:
    steps = values.get(STEPS)
    if not isinstance(steps, Sequence):
        return
    if not any(steps):
        yield Objection((STEPS,), "no step is ever taken", "a number above 0 among them")
    elif rule.from_difference and 0 in steps:
        problem = f'"{values[METHOD]}" learns from how far its inner steps went: none teach nothing'
        yield Objection((STEPS, METHOD), problem, "numbers above 0")


def _trunk_conflicts(values: Values) -> Iterator[Objection]:
    name, right = values[METHOD], 'a method that trains LoRA, with method.lora.layers such as "last-8"; or false'
    if not METHODS[name].space.reads_lora:
        problem = f'"{name}" trains every layer, so nothing below a trained one could be kept'
        yield Objection((TRUNK_CACHE, METHOD), problem, right)
    elif _includes_the_first(values["method.lora.layers"]):
        problem = "the first layer is trained too, so nothing below it could be kept"
        yield Objection((TRUNK_CACHE, "method.lora.layers", METHOD), problem, right)


def _prompt_conflicts(values: Values) -> Iterator[Objection]:
    name = values[METHOD]
    row, right = METHODS[name], "alone"
    if _prompt(values) == right:
        if row.prompt != right:
            problem, like = f'"{name}" trains on prompts with examples in them', (row.rule, row.space, right)
            plain = [other for other, its in METHODS.items() if (its.rule, its.space, its.prompt) == like]
            yield Objection((PROMPT, METHOD), problem, f"in-context; or {plain[0]} as method.name")
        return
    if row.one_task:
        problem = f'"{name}" trains an adapter that is ready to use as it is, without examples in its prompts'
        yield Objection((PROMPT, METHOD), problem, f"{right}; or a method that shares an initialization")
    if "inner" in row.rule.options() and values[SUPPORT] < 2:
        problem = "an inner step asks one support example behind the others, and there are none"
        yield Objection((SUPPORT, PROMPT, METHOD), problem, "at least 2")
    if values[TRUNK_CACHE]:
        problem = "prompts with examples in them hardly come twice, so nothing that is kept of them would be read again"
        yield Objection((TRUNK_CACHE, PROMPT, METHOD), problem, f"false, or {right} in {PROMPT}")


def _prompt(values: Values) -> Any:
    return values.get(PROMPT) or METHODS[values[METHOD]].prompt


def _is_one_prompt(values: Values) -> bool:
    """Whether a step's examples of a task are one prompt, every answer of which is learned from."""
    if values.get(METHOD) not in METHODS or "inner" in METHODS[values[METHOD]].rule.options():
        return False
    return _prompt(values) == "in-context"


def _lean_conflicts(values: Values) -> Iterator[Objection]:
    name = values[METHOD]
    if METHODS[name].rule.from_difference:
        problem = f'"{name}" learns from how far a few small steps went, which is below the spacing of bfloat16'
        yield Objection((LEAN, METHOD), problem, "false, or a method with a query set")
    if METHODS[name].rule.second_order:
        problem = f'"{name}" sums many small second-order terms, which bfloat16 would lose'
        yield Objection((LEAN, METHOD), problem, "false, or a first-order method")
    if values[DTYPE] != "bfloat16":
        problem = "lean values are rounded stochastically to bfloat16, the dtype that the model then has too"
        yield Objection((LEAN, DTYPE), problem, "false, or bfloat16 as model.dtype")
    if values.get(INNER_OPTIMIZER) == "adamw":
        problem = "two moments of every parameter for each task would be larger than all that lean saves"
        yield Objection((LEAN, INNER_OPTIMIZER, METHOD), problem, "false, or sgd as inner optimizer")


def _includes_the_first(layers: str | Sequence[int]) -> bool:
    return layers == "all" if isinstance(layers, str) else 0 in layers


def _without(key: str, source: str, what: str) -> Objection:
    return Objection((key, source), f"read only with {what}", f"leave it out, or name {what} in {source}")
