"""What may not be known twice: a prompt on both sides of a task, an example in tasks of two roles.

Sides           a task's examples, divided
divided         examples -> pool and test, all examples of a prompt on one side
Overlap         how many examples of a task are also in tasks of another role
overlaps        those of every validation and held-out task
overlap_lines   the same for people
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from innerloop.data.tasks import Example, Task, normalized

SHOWN = 5  # tasks named in a message


class Sides(NamedTuple):
    """left_out: examples on neither side, since their prompt is that of a test example."""

    pool: tuple[Example, ...]
    test: tuple[Example, ...]
    left_out: int


def divided(examples: Iterable[Example], test: int, *, reserved: Iterable[Example] = ()) -> Sides:
    """Pool and test: prompts go to the test side in order of their smallest example id, until it has `test` examples.

    reserved  what a test split brought; where there is any, the test side is taken from it alone
    Of the last prompt no more than is needed is tested; its other examples are left out, as are all that share a
    prompt with what was reserved. The order of the examples changes nothing.
    """
    groups, kept = _by_prompt(examples), _by_prompt(reserved)
    source = kept or groups
    tested: list[Example] = []
    asked: set[str] = set()
    for key in sorted(source, key=lambda key: source[key][0].id):
        if len(tested) < test:
            tested += source[key][: test - len(tested)]
            asked.add(key)
    asked |= kept.keys()
    pool = [example for key, group in groups.items() if key not in asked for example in group]
    given = sum(map(len, groups.values()))
    left_out = given - len(pool) - (0 if kept else len(tested))
    return Sides(_ordered(pool), _ordered(tested), left_out)


def _by_prompt(examples: Iterable[Example]) -> dict[str, list[Example]]:
    """Each prompt's examples, in order of their ids."""
    groups: dict[str, list[Example]] = {}
    for example in _ordered(examples):
        groups.setdefault(example.prompt_key, []).append(example)
    return groups


def _ordered(examples: Iterable[Example]) -> tuple[Example, ...]:
    return tuple(sorted(examples, key=lambda example: example.id))


class Overlap(NamedTuple):
    """Examples of a task that are also in tasks of another role.

    task, role      the task that would be known, and its role
    test, of_test   how many of its test examples, of how many
    pool, of_pool   the same of its pool
    role_of, used   the role that has them too, and how many of them it learns from or chooses settings by
    others          the tasks of that role which have them
    """

    task: str
    role: str
    test: int
    of_test: int
    pool: int
    of_pool: int
    role_of: str
    used: int
    others: tuple[str, ...]


Pair = tuple[str, str]  # prompt and answer, both normalized


class _Known(NamedTuple):
    """What a role's tasks hold: the tasks of each pair, and the pairs that are used."""

    tasks: dict[Pair, list[str]]
    used: set[Pair]


def overlaps(roles: Mapping[str, Sequence[Task]]) -> list[Overlap]:
    """Equal prompt and answer, both normalized, in tasks of two roles; empty where nothing is shared.

    roles  train, validation and held_out, in this order: each is compared with those before it
    """
    found: list[Overlap] = []
    known: dict[str, _Known] = {}
    for role, tasks in roles.items():
        each = ((task, role_of, held) for task in tasks for role_of, held in known.items())
        found += [overlap for task, role_of, held in each if (overlap := _overlap(task, role, role_of, held))]
        known[role] = _known(tasks, tests_are_used=role == "validation")
    return found


def _known(tasks: Sequence[Task], *, tests_are_used: bool) -> _Known:
    known = _Known({}, set())
    for task in tasks:
        for side, used in ((task.pool, True), (task.test, tests_are_used)):
            for pair in (pair for example in side for pair in _pairs(example)):
                known.tasks.setdefault(pair, []).append(task.name)
                if used:
                    known.used.add(pair)
    return known


def _overlap(task: Task, role: str, role_of: str, known: _Known) -> Overlap | None:
    test, pool = ([each for each in side if _within(each, known.tasks)] for side in (task.test, task.pool))
    if not test and not pool:
        return None
    pairs = [pair for example in (*test, *pool) for pair in _pairs(example)]
    others = tuple(dict.fromkeys(name for pair in pairs for name in known.tasks.get(pair, [])))
    used = sum(_within(example, known.used) for example in (*test, *pool))
    return Overlap(task.name, role, len(test), len(task.test), len(pool), len(task.pool), role_of, used, others)


def _within(example: Example, pairs: Container[Pair]) -> bool:
    return any(pair in pairs for pair in _pairs(example))


def _pairs(example: Example) -> list[Pair]:
    return [(example.prompt_key, normalized(answer)) for answer in example.answers]


def overlap_lines(found: Sequence[Overlap]) -> list[str]:
    """A line for each of the first few, and the number of the others."""
    words = {"train": "training tasks, which train on", "validation": "validation tasks, which choose by"}
    lines = [
        f"{each.test} of {each.of_test} test and {each.pool} of {each.of_pool} pool examples of task {each.task} "
        f"({each.role}) are also in {words[each.role_of]} {each.used}: "
        f"{', '.join(each.others[:3])}{', ...' if len(each.others) > 3 else ''}"
        for each in found[:SHOWN]
    ]
    more = found[SHOWN:]
    return [*lines, f"and {sum(each.test + each.pool for each in more)} of {len(more)} more tasks"] if more else lines
