"""What may not be known twice: a prompt on both sides of a task, an example in tasks of two roles.

Sides           a task's examples, divided
divided         examples -> pool and test, all examples of a prompt on one side
Overlap         how many examples of one task's side are also in the pools that another role is trained or chosen on
overlaps        those of every validation and held-out task
overlap_lines   the same for people
"""

from collections.abc import Iterable, Mapping, Sequence
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
    """`shared` of the `of` examples on this side (test or pool) of a task are also in pools of `role_of` tasks.

    task, role       the task that would be known
    role_of, others  which role knows it, and the tasks whose pools hold these examples
    example          the id of one of them
    """

    task: str
    role: str
    side: str
    shared: int
    of: int
    role_of: str
    others: tuple[str, ...]
    example: str


def overlaps(roles: Mapping[str, Sequence[Task]]) -> list[Overlap]:
    """Equal prompt and answer, both normalized, between what one role learns from and another is measured on.

    roles  train, validation and held_out, in this order: each is compared with the pools of those before it, and
           held_out with the test examples that validation chooses settings on. An empty list where nothing is shared.
    """
    found: list[Overlap] = []
    known: dict[str, dict[tuple[str, str], list[str]]] = {}
    for role, tasks in roles.items():
        for task in tasks:
            found += [
                overlap
                for role_of, pairs in known.items()
                for side in ("test", "pool")
                if (overlap := _overlap(task, role, side, role_of, pairs))
            ]
        pairs: dict[tuple[str, str], list[str]] = {}
        for task in tasks:
            sides = (task.pool, task.test) if role == "validation" else (task.pool,)
            for example in (example for side in sides for example in side):
                for pair in _pairs(example):
                    pairs.setdefault(pair, []).append(task.name)
        known[role] = pairs
    return found


def _overlap(
    task: Task, role: str, side: str, role_of: str, pairs: Mapping[tuple[str, str], list[str]]
) -> Overlap | None:
    examples = task.test if side == "test" else task.pool
    shared = [(example, names) for example in examples if (names := _knowing(example, pairs))]
    if not shared:
        return None
    others = tuple(dict.fromkeys(name for _, names in shared for name in names))
    return Overlap(task.name, role, side, len(shared), len(examples), role_of, others, shared[0][0].id)


def _knowing(example: Example, pairs: Mapping[tuple[str, str], list[str]]) -> list[str]:
    return [name for pair in _pairs(example) for name in pairs.get(pair, [])]


def _pairs(example: Example) -> list[tuple[str, str]]:
    return [(example.prompt_key, normalized(answer)) for answer in example.answers]


def overlap_lines(found: Sequence[Overlap]) -> list[str]:
    """A line for each of the first few, and the number of the others."""
    words = {"train": "training tasks", "validation": "validation tasks"}
    lines = [
        f"{each.shared} of {each.of} {each.side} examples of task {each.task} ({each.role}) are also in "
        f"{words[each.role_of]}: {', '.join(each.others[:3])}{', ...' if len(each.others) > 3 else ''}"
        for each in found[:SHOWN]
    ]
    more = found[SHOWN:]
    return [*lines, f"and {sum(each.shared for each in more)} more in {len(more)} places"] if more else lines
