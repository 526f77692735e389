"""Tasks whose rule the prompt doesn't tell: the same prompt has another answer in another task of its family.

task_names   the names "family/number" of the suite's tasks, without building them
build        the tasks
"""

from collections import Counter
from itertools import count

from innerloop.data.suites.drawing import DIFFICULTIES, Request, draw_distinct, named_rng, named_seed, too_few
from innerloop.data.suites.drawn_rules import Input, Rule
from innerloop.data.suites.hidden_families import FAMILIES, Level
from innerloop.data.tasks import Example, Task
from innerloop.errors import Fault, Faults, UserError

INSTANCES = 4  # tasks per family, unless asked otherwise
SHARED_INPUTS = 400  # a family's tasks draw from this many inputs, so any two of them share prompts
SPARE_INPUTS = 24  # for tests, at least: so that two tasks needn't test the same input, where they agree on it
CONFLICT = 0.65  # two rules of a family differ on more than this share of the shared inputs
LARGEST_SHARE = 0.6  # no rule gives one answer to more than this share of them
TRIES = 300
CHOSEN_OF = 60  # tries that look for a rule which repeats at most this share of the earlier ones' answers
REPEATED = 0.1


def task_names(instances: int | None) -> list[tuple[str, str]]:
    """(task name, family) of every task, `instances` per family."""
    numbers = range(INSTANCES if instances is None else instances)
    return [(f"{family}/{number}", family) for family in FAMILIES for number in numbers]


def build(request: Request, instances: int | None) -> list[Task]:
    """All tasks; UserError names every one that has too few distinct examples or no rule left.

    A prompt is for pools or for tests, whoever asks it. Inputs on which an earlier task's rule says the same come
    last, so that no example (prompt and answer) is in two tasks, where a family has inputs enough; beyond INSTANCES it
    has not, and what two tasks share would be most of what is left.
    """
    number_of = INSTANCES if instances is None else instances
    drawn = {family: _inputs(family, request) for family in FAMILIES}
    sides = _sides(drawn, request)
    faults = Faults()
    rules: dict[str, list[Rule]] = {}
    for family, (pool, test) in sides.items():
        if len(pool) < request.examples_per_task or len(test) < request.test_examples:
            available = len(pool) + min(len(test), request.test_examples)
            faults.extend(too_few(f"{family}/{number}", request, available) for number in range(number_of))
            continue
        try:
            rules[family] = _draw_rules(family, _level(family, request), drawn[family], request.seed, number_of)
        except UserError as error:
            faults.extend(error.faults)
    faults.raise_if_any()
    tasks: dict[str, list[Task]] = {family: [] for family in FAMILIES}
    said: set[tuple[Input, str]] = set()
    for number in range(number_of):  # in this order, more tasks per family change nothing in the earlier ones
        for family in FAMILIES:
            known = said if number < INSTANCES else set[tuple[Input, str]]()
            tasks[family].append(_task(f"{family}/{number}", rules[family][number], sides[family], known, request))
    return [task for family in FAMILIES for task in tasks[family]]


def _inputs(family: str, request: Request) -> list[Input]:
    level, rng = _level(family, request), named_rng(request.seed, "hidden-rules", family, "inputs")
    return draw_distinct((level.draw_input(rng) for _ in count()), max(SHARED_INPUTS, request.total))


def _level(family: str, request: Request) -> Level:
    return FAMILIES[family][DIFFICULTIES.index(request.difficulty)]


def _sides(drawn: dict[str, list[Input]], request: Request) -> dict[str, tuple[list[Input], list[Input]]]:
    """Each family's inputs for pools and for tests: a threshold on a digest of the input, the same for all families,
    since some of them share inputs. It gives the family with the fewest inputs some more than a test takes.
    """
    wanted = request.test_examples and request.test_examples + max(SPARE_INPUTS, request.test_examples // 2)

    def digest(items: Input) -> int:
        return named_seed(request.seed, "hidden-rules", "side", *items)

    threshold = -1
    for inputs in drawn.values():
        if 0 < wanted <= len(inputs):
            threshold = max(threshold, sorted(map(digest, inputs[:SHARED_INPUTS]))[wanted - 1])
    return {
        family: (
            [items for items in inputs if digest(items) > threshold],
            [items for items in inputs if digest(items) <= threshold],
        )
        for family, inputs in drawn.items()
    }


def _task(
    name: str, rule: Rule, sides: tuple[list[Input], list[Input]], said: set[tuple[Input, str]], request: Request
) -> Task:
    """Adds to `said` what the rule makes of the family's first inputs, taken or not: so a pool's size moves nothing."""

    def examples(inputs: list[Input], wanted: int, side: str) -> tuple[Example, ...]:
        order = list(inputs)
        named_rng(request.seed, "hidden-rules", name, side).shuffle(order)
        order.sort(key=lambda items: (items, rule(items)) in said)
        return tuple(Example(f"in: {' '.join(items)}\nout:", f" {rule(items)}") for items in order[:wanted])

    pool, test = sides
    task = Task(
        name,
        pool=examples(pool, request.examples_per_task, "pool"),
        test=examples(test, request.test_examples, "test"),
        family=name.partition("/")[0],
    )
    said.update((items, rule(items)) for items in (*pool, *test))
    return task


def _draw_rules(family: str, level: Level, inputs: list[Input], seed: int, instances: int) -> list[Rule]:
    """Rules that are balanced and in conflict pair by pair; rule n is the same however many follow it.

    Of some that would do, the one that says least what an earlier rule says of the same input.
    """
    rules: list[Rule] = []
    answers: list[list[str]] = []
    for number in range(instances):
        rng = named_rng(seed, "hidden-rules", family, number, "rule")
        found: list[tuple[float, Rule, list[str]]] = []
        for attempt in range(TRIES):
            rule = level.draw_rule(rng)
            said = [rule(items) for items in inputs]
            if _is_balanced(said) and all(_are_in_conflict(said, other) for other in answers):
                found.append((_repeated(said, answers), rule, said))
            if found and (attempt >= CHOSEN_OF or found[-1][0] <= REPEATED):
                break
        if not found:
            where = f"suite hidden-rules, family {family}"
            raise UserError(
                Fault("no further rule that differs from the others", where, instances, f"at most {number}")
            )
        _, rule, said = min(found, key=lambda each: each[0])
        rules.append(rule)
        answers.append(said)
    return rules


def _repeated(said: list[str], earlier: list[list[str]]) -> float:
    """The share of inputs on which some earlier rule gives the same answer."""
    return sum(one in others for one, *others in zip(said, *earlier, strict=True)) / len(said)


def _is_balanced(said: list[str]) -> bool:
    return max(Counter(said).values()) <= LARGEST_SHARE * len(said)


def _are_in_conflict(said: list[str], other: list[str]) -> bool:
    return sum(a != b for a, b in zip(said, other, strict=True)) > CONFLICT * len(said)
