"""A run's config and the names of other methods -> the matrix that compares them: `innerloop compare run.yaml --arms`.

asked_for    a file and --arms -> Derived; None for a matrix file, which names its arms itself
matrix_tree  the tree of that matrix
fitted       what of a run's keys a method reads, and what it doesn't
Derived      a matrix that no file has, and in words what it left out
LeftOut      keys that an arm goes without, and why
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from innerloop.comparison.matrix import JOINT, ONE_TASK
from innerloop.comparison.reading import NOT_TO_SET
from innerloop.comparison.steps import tokens_read
from innerloop.config.defaults import defaults, within
from innerloop.config.document import Document, to_yaml
from innerloop.config.loading import KEYS, RunConfig, sound_part
from innerloop.config.rules import INNER_OPTIMIZER, METHOD, PROMPT, conflicts, unread
from innerloop.config.schema import ABSENT, BROKEN_METHODS, get, nested
from innerloop.engine.groundwork import Say, groundwork
from innerloop.engine.session import prepare
from innerloop.errors import Faults, UserError, did_you_mean
from innerloop.learning.methods import METHODS
from innerloop.loading.models import LoadedModel
from innerloop.results.names import UNTRAINED, known_arms
from innerloop.spaces.kinds import KINDS

OPTIMIZER = INNER_OPTIMIZER.removesuffix(".name")
# Sections that say how a run is watched, or where it starts; and those whose rates are of a kind of space.
APART = {
    "evaluate": "a comparison scores every arm itself, after its whole budget",
    "report_to": "a comparison has a page of its own",
    "start_from": "every arm starts at the model as it is",
}
OF_A_SPACE = ("method.inner", "outer.optimizer")
# Those of matrices/quick.yaml. The k is the run's own.
DRAWS, FORGETTING_PROMPTS = 2, 30
MOST_SEEDS = 1000
EXAMPLE = "--arms lora,joint-lora,meta-lora"

Values = Mapping[str, Any]


class LeftOut(NamedTuple):
    key: str
    why: str


class Derived(NamedTuple):
    """text: the matrix as YAML; options: of the command that asked for it; lines: for people."""

    document: Document
    text: str
    options: tuple[str, ...]
    lines: tuple[str, ...]


def asked_for(
    path: Path, arms: str | None, seeds: str | None, *, day: str | None = None, say: Say | None = None
) -> Derived | None:
    """Reads the run's data, since the budget is the tokens that its own steps read; loads no weights.

    arms, seeds  as given on the command line; day: what an earlier start told the chat template
    Raises UserError with everything that is wrong with the options and with the run.
    """
    faults = Faults()
    document = Document.read(path, Faults())
    is_matrix = "method" not in document.tree and bool({"arms", "runs", "budgets"} & document.tree.keys())
    if arms is None:
        _check_bare(document, seeds, is_matrix, faults)
        return None
    methods = _methods(arms, faults)
    if is_matrix:
        where, right = document.where(("arms",)), "the config of a run; or leave --arms out"
        faults.add("a matrix names its arms itself, and --arms goes with a run", where, expected=right)
    part = None if is_matrix else sound_part(path, [], faults)
    numbers = _seeds(seeds, part.config.seed if part else 0, faults)
    if part and part.sound("tasks"):
        for role in ("held_out", "validation"):
            if not getattr(part.config.tasks, role):
                where, right = document.where(("tasks", role)), "at least one: all arms are scored and tuned on them"
                faults.add(f"no {role.replace('_', '-')} task", where, expected=right)
    faults.raise_if_any()
    assert part is not None
    tokens = _tokens(part.config, day, say)
    tree, left = matrix_tree(part.config, document.tree, methods, seeds=numbers, tokens=tokens)
    steps, name = part.config.outer.steps, part.config.method.name
    budget = f"{tokens:,} tokens for each arm: what the {steps} steps of {name} in {path} read"
    lines = [f"budget   {budget}", *(f"without  {line}" for line in _said(left))]
    comments = [f"{path} as a matrix, written by innerloop compare.", f"Budget: {budget}."]
    comments += [f"Without {line}." for line in _said(left)]
    text = "".join(f"# {line}\n" for line in comments) + to_yaml(tree)
    options = ("--arms", arms, *(("--seeds", seeds) if seeds is not None else ()))
    return Derived(Document(f"{path} as a matrix", tree), text, options, tuple(lines))


def matrix_tree(
    config: RunConfig, given: Mapping[str, Any], arms: Sequence[str], *, seeds: Sequence[int], tokens: int
) -> tuple[dict[str, Any], dict[str, list[LeftOut]]]:
    """The matrix, and what each arm goes without.

    given  the run's own tree: what it leaves out is each method's default
    """
    flat, own = config.flat(), config.method.name
    asked = {key: flat[key] for key in KEYS if key in flat and _is_given(given, key)}
    apart = [LeftOut(key, why) for key, why in APART.items() if any(within(name, key) for name in asked)]
    asked = {key: value for key, value in asked.items() if key not in NOT_TO_SET and not _is_in(key, APART)}
    fits = {arm: fitted(asked, own, arm) for arm in arms if arm not in UNTRAINED}
    kept = {arm: values for arm, (values, _) in fits.items()}
    every = _common([*kept.values(), fitted(asked, own, JOINT)[0]])  # untrained arms start from joint LoRA's space
    runs, parts = {"every": nested(every)}, dict[str, dict[str, Any]]()
    for kind in KINDS.values():
        its = {arm: values for arm, values in kept.items() if METHODS[arm].space is kind}
        beside = [fitted(asked, own, JOINT)[0]] if METHODS[JOINT].space is kind else []
        shared = _common([*its.values(), *beside])
        if part := nested(_without(shared, every)):
            runs[kind.name] = part
        parts |= {arm: nested(_without(values, every | shared)) for arm, values in its.items()}
    k = config.tasks.support
    tree: dict[str, Any] = {
        "name": config.output_dir.name or own,
        "runs": runs,
        "arms": {arm: parts.get(arm, {}) for arm in dict.fromkeys((*UNTRAINED, *arms))},
        "budgets": {"tokens": tokens},
        "seeds": list(seeds),
        "evaluation": {"k": [0, k], "draws": DRAWS, "forgetting_prompts": FORGETTING_PROMPTS},
    }
    if {own, JOINT} <= kept.keys() and own != JOINT:  # the run's method is what is asked about
        tree["primary"] = {"arm": own, "against": JOINT, "metric": "nats", "k": k, "adaptation": "tuned"}
    left = {"every arm": apart, **{arm: gone for arm, (_, gone) in fits.items()}}
    return tree, {arm: gone for arm, gone in left.items() if gone}


def fitted(asked: Values, own: str, arm: str) -> tuple[dict[str, Any], list[LeftOut]]:
    """The keys of a run of method `own` that a run of method `arm` reads, and why it goes without the others."""
    values, left = dict(asked), list[LeftOut]()
    row, space = METHODS[arm], METHODS[own].space
    if row.space is not space:
        why = f'chosen for {space.title}, and "{arm}" trains {row.space.title}'
        left += [LeftOut(key, why) for key in OF_A_SPACE if any(within(name, key) for name in values)]
        values = {key: value for key, value in values.items() if not _is_in(key, OF_A_SPACE)}
    while gone := next(_unfit(values, arm), None):
        left.append(gone)
        values = {key: value for key, value in values.items() if not within(key, gone.key)}
    return values, left


def _unfit(values: Values, arm: str) -> Iterator[LeftOut]:
    """Keys that the method doesn't read, then those that it can't have with these values."""
    named = {**values, METHOD: arm, **(_flat(ONE_TASK) if METHODS[arm].one_task else {})}
    filled = {**defaults(named), **named}
    for objection in unread(filled):
        if any(within(key, objection.keys[0]) for key in values):
            yield LeftOut(objection.keys[0], objection.problem)
    for objection in conflicts(filled):
        for key in objection.keys:
            # A model and sizes of tasks that don't go with a method are the user's to change.
            if key in values and (key == PROMPT or not _is_in(key, ("model", "tasks"))):
                yield LeftOut(OPTIMIZER if key == INNER_OPTIMIZER else key, objection.problem)


def _is_given(tree: Mapping[str, Any], key: str) -> bool:
    """An inner optimizer is given as a whole: the same options of another method's would be another optimizer."""
    return get(tree, OPTIMIZER if within(key, OPTIMIZER) else key) is not ABSENT


def _is_in(key: str, sections: Iterable[str]) -> bool:
    return any(within(key, section) for section in sections)


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key in KEYS if (value := get(tree, key)) is not ABSENT}


def _common(each: Sequence[Values]) -> dict[str, Any]:
    """What is in all of them."""
    first, *others = each or [{}]
    return {key: value for key, value in first.items() if all(key in other for other in others)}


def _without(values: Values, others: Values) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in others}


def _check_bare(document: Document, seeds: str | None, is_matrix: bool, faults: Faults) -> None:
    if seeds is not None:
        faults.add("read only with --arms", "--seeds", seeds, "seeds in the matrix")
    if not is_matrix and "method" in document.tree:
        faults.add("this is the config of a run, and no matrix", document.name, expected=f"{EXAMPLE} with it")
    faults.raise_if_any()


def _methods(arms: str, faults: Faults) -> list[str]:
    names = [name.strip() for name in arms.split(",") if name.strip()]
    for name in dict.fromkeys(names):
        if fault := BROKEN_METHODS.get(name):
            faults.append(fault)
        elif name not in known_arms():
            faults.add("no such arm", "--arms", name, did_you_mean(name, known_arms()))
        elif names.count(name) > 1:
            faults.add("an arm is named twice", "--arms", name, "each arm once")
    if not names or all(name in UNTRAINED for name in names):
        faults.add("no method to train", "--arms", arms, f"methods, such as {EXAMPLE}")
    return names


def _seeds(given: str | None, first: int, faults: Faults) -> list[int]:
    """A number is how many, from the run's own on; several are the seeds."""
    if given is None:
        return [first]
    words = [word.strip() for word in given.split(",")]
    numbers = [int(word) for word in words if word.isascii() and word.isdecimal() and len(word) <= 10]
    if len(numbers) == 1 == len(words):
        count = numbers[0]
        numbers = list(range(first, first + min(count, MOST_SEEDS + 1)))
        if 0 < count <= MOST_SEEDS and numbers[-1] < 2**32:
            return numbers
    elif len(numbers) == len(words) == len(set(numbers)) and max(numbers) < 2**32:
        return numbers
    right = f"how many, from 1 to {MOST_SEEDS}; or different seeds from 0 to 2**32 - 1, such as 1,2,3"
    faults.add("not seeds", "--seeds", given, right)
    return [first]


def _tokens(config: RunConfig, day: str | None, say: Say | None) -> int:
    """That the run's own steps read, each time that they do."""
    if day is not None and config.tasks.date is None:
        config = config.model_copy(update={"tasks": config.tasks.model_copy(update={"date": day})})
    ground = groundwork(config, say=say)
    if ground.tokenizer is None:
        raise UserError(f"{config.model.name}: its tokenizer isn't here, so no tokens can be counted")
    name = config.model.name
    model = LoadedModel(ground.model, ground.tokenizer, name, name, "")
    return tokens_read(prepare(config, model=model, ground=ground))


def _said(left: Mapping[str, Sequence[LeftOut]]) -> Iterator[str]:
    for arm, gone in left.items():
        for why in dict.fromkeys(each.why for each in gone):
            keys = [each.key for each in gone if each.why == why]
            yield f"{', '.join(keys)} in {arm}: {why}"
