"""Tasks from life: each is one customer's way to write dates, names or amounts, and the prompt doesn't tell whose.

KINDS        kind -> its inputs and what a style of it decides
task_names   the names "kind/number" of the suite's tasks, without building them
build        the tasks
styles       the first styles of a kind
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby

from innerloop.data.suites.drawing import Request, named_rng, too_few
from innerloop.data.suites.styles import Kind, Style, drawn
from innerloop.data.suites.styles_dates import DATES, TIMES
from innerloop.data.suites.styles_lists import LISTS, RECORDS
from innerloop.data.suites.styles_numbers import AMOUNTS, UNITS
from innerloop.data.suites.styles_people import NAMES, PHONES
from innerloop.data.tasks import Example, Task
from innerloop.errors import Fault, Faults, UserError

KINDS: dict[str, Kind] = {
    "dates": DATES,
    "names": NAMES,
    "amounts": AMOUNTS,
    "times": TIMES,
    "phones": PHONES,
    "units": UNITS,
    "lists": LISTS,
    "records": RECORDS,
}
INSTANCES = 16  # styles per kind, unless asked otherwise
MOST = 128  # styles per kind: each has inputs of its own, so that no example is in two tasks
INPUTS = 300  # of a style, at most
PROBES = 60  # inputs that styles are told apart by
DIFFERENT = 0.25  # two styles of a kind, or a style and its prompt, differ on at least this share of them


def task_names(instances: int | None) -> list[tuple[str, str]]:
    """(task name, kind) of every task, `instances` per kind."""
    if instances is not None and instances > MOST:
        raise UserError(Fault("too many", "suite house-styles: instances", instances, f"at most {MOST}"))
    numbers = range(INSTANCES if instances is None else instances)
    return [(f"{kind}/{number}", kind) for kind in KINDS for number in numbers]


def build(request: Request, instances: int | None) -> list[Task]:
    """All tasks; UserError names every one that has too few inputs. No two tasks ask the same."""
    faults = Faults()
    tasks: list[Task] = []
    for kind, members in groupby(task_names(instances), key=lambda named: named[1]):
        names = [name for name, _ in members]
        numbers, share = _inputs(kind, request.seed), len(_inputs(kind, request.seed)) // MOST
        if request.total > share:
            faults.extend(too_few(name, request, share) for name in names)
            continue
        for place, (name, style) in enumerate(zip(names, styles(kind, request, len(names)), strict=True)):
            examples = _examples(KINDS[kind], style, numbers[place * share :][: request.total])
            test, pool = examples[: request.test_examples], examples[request.test_examples :]
            tasks.append(Task(name, pool=pool, test=test, family=kind))
    faults.raise_if_any()
    return tasks


def _examples(kind: Kind, style: Style, numbers: Sequence[int]) -> tuple[Example, ...]:
    inputs = map(kind.items, numbers)
    return tuple(Example(f"in: {kind.shown(*items)}\nout:", f" {kind.written(items, style)}") for items in inputs)


@lru_cache(maxsize=32)
def _inputs(kind: str, seed: int) -> list[int]:
    """The numbers of inputs for all styles of a kind that there can be, in turn."""
    size = KINDS[kind].size
    rng = named_rng(seed, "house-styles", kind, "inputs")
    return rng.sample(range(size), MOST * min(INPUTS, size // MOST))


def styles(name: str, request: Request, wanted: int) -> list[Style]:
    """The first styles of a kind, which differ from each other in what they write; more of them change nothing."""
    kind, rng = KINDS[name], named_rng(request.seed, "house-styles", name, request.difficulty, "styles")
    inputs = [kind.items(number) for number in _inputs(name, request.seed)[-PROBES:]]
    known = [[kind.shown(*items) for items in inputs]]
    found: list[Style] = []
    while len(found) < wanted:
        style = drawn(kind, request.difficulty, rng)
        said = [kind.written(items, style) for items in inputs]
        if all(sum(a != b for a, b in zip(said, other, strict=True)) >= DIFFERENT * PROBES for other in known):
            known.append(said)
            found.append(style)
    return found
