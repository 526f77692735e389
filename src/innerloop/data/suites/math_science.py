"""Short problems with checked answers: arithmetic and logic from reasoning-gym, and procedural science.

GENERATORS    reasoning-gym generator -> its easy, default and hard configuration (tune difficulty here; easy and
              default are one where the easiest setting is no easier than a 135M model needs)
task_names    the tasks' names, one per family, without building them
build         the tasks
GymVerifier   checks an answer with the generator's own scorer
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from innerloop.data.suites import science
from innerloop.data.suites.drawing import (
    DIFFICULTIES,
    Difficulty,
    Request,
    demo_import,
    draw_distinct,
    named_rng,
    named_seed,
    too_few,
    without_full_stop,
)
from innerloop.data.tasks import Example, Task, Verifier
from innerloop.data.verifiers import numbers_in
from innerloop.errors import Fault, Faults, UserError

LONGEST_QUESTION = 500  # characters; a longer one is passed over
ITEMS = 50_000  # items a generator is asked for at most; some allocate for all of them

Config = dict[str, Any]
GENERATORS: dict[str, tuple[Config, Config, Config]] = {
    "aiw": ({"max_entities": 4}, {"max_entities": 6}, {"max_entities": 9}),
    "base_conversion": (
        {"max_base": 3, "min_value": 1, "max_value": 127},
        {"max_base": 3, "min_value": 1, "max_value": 127},
        {"max_base": 10, "min_value": 1, "max_value": 255},
    ),
    "basic_arithmetic": (
        {"max_terms": 2, "max_digits": 1},
        {"max_terms": 3, "max_digits": 1},
        {"max_terms": 4, "max_digits": 2},
    ),
    "calendar_arithmetic": (
        {"tasks": ["weekday_offset"], "offset_upper_bound": 3},
        {"tasks": ["weekday_offset"], "offset_upper_bound": 7},
        {"tasks": ["weekday_offset", "weekday_of_date_from_first_date"], "offset_upper_bound": 40},
    ),
    "chain_sum": (
        {"max_terms": 2, "max_digits": 1},
        {"max_terms": 2, "max_digits": 2},
        {"max_terms": 4, "max_digits": 3},
    ),
    "complex_arithmetic": (
        {"operations": ("+",), "operations_weights": [1.0], "min_real": 0, "min_imag": 0},
        {"operations": ("+",), "operations_weights": [1.0], "min_real": 0, "min_imag": 0},
        {},
    ),
    "count_bits": ({"max_n": 160}, {"max_n": 255}, {"max_n": 1023}),
    "count_primes": ({"max_n": 30}, {"max_n": 50}, {"max_n": 100}),
    "decimal_chain_sum": (
        {"max_terms": 2, "max_digits": 1, "max_decimal_places": 1},
        {"max_terms": 2, "max_digits": 1, "max_decimal_places": 1},
        {"max_terms": 3, "max_digits": 2, "max_decimal_places": 2},
    ),
    "family_relationships": ({"max_family_size": 4}, {"max_family_size": 6}, {"max_family_size": 8}),
    "fraction_simplification": (
        {"max_value": 9, "max_factor": 9, "styles": ("plain",)},
        {"max_value": 9, "max_factor": 9, "styles": ("plain",)},
        {"max_value": 40, "max_factor": 20, "styles": ("plain",)},
    ),
    "gcd": ({"max_value": 20}, {"max_value": 30}, {"max_value": 100}),
    "gsm_symbolic": ({}, {}, {}),
    "lcm": ({"max_value": 15}, {"max_value": 20}, {"max_value": 50}),
    "leg_counting": (
        {"min_animals": 1, "max_animals": 2, "max_instances": 3},
        {"min_animals": 1, "max_animals": 2, "max_instances": 5},
        {"min_animals": 2, "max_animals": 4, "max_instances": 9},
    ),
    "letter_counting": (
        {"min_words": 3, "max_words": 5},
        {"min_words": 5, "max_words": 7},
        {"min_words": 8, "max_words": 12},
    ),
    "number_sequence": (
        {"max_terms": 5, "max_complexity": 1},
        {"max_terms": 6, "max_complexity": 1},
        {"max_terms": 6, "max_complexity": 2},
    ),
    "prime_factorization": ({"max_value": 180}, {"max_value": 200}, {"max_value": 999}),
    "products": ({"max_terms": 3, "max_digits": 1}, {"max_digits": 2}, {"min_digits": 2, "max_digits": 2}),
    "simple_equations": (
        {"max_terms": 2, "max_value": 9},
        {"max_terms": 2, "max_value": 20},
        {"max_terms": 3, "max_value": 50},
    ),
    "simple_geometry": (
        {"max_sides": 3, "min_angle": 40, "max_angle": 80},
        {"max_sides": 3, "min_angle": 40, "max_angle": 80},
        {"max_sides": 4, "min_angle": 61, "max_angle": 100},
    ),
    "spell_backward": ({"max_word_len": 3}, {"max_word_len": 3}, {"max_word_len": 7}),
    "time_intervals": (
        {"task_types": ["time"], "max_time_difference_seconds": 3600},
        {"task_types": ["time"], "max_time_difference_seconds": 7200},
        {"task_types": ["time", "date"], "max_time_difference_seconds": 36000},
    ),
}
# Instructions to a chat model, which a prompt of the form "Question: ... Answer:" does without.
_OPENING = re.compile(r"^(?:Your task is to .*?Now, |State the final answer to .*?: )", re.DOTALL)
_CLOSING = re.compile(r"(?:\s*(?:Give only|Give the result|Return only|Do not include|Do not give) [^.]*\.)+$")


@dataclass(frozen=True)
class GymVerifier:
    """Whether the generator's own scorer gives an answer to one of the task's examples its full point.

    What it pays for a wrong answer in the right form, or a near miss, is nothing here. Entries are generated again
    when they are asked for, so the verifier is small and can be pickled.
    """

    generator: str
    difficulty: Difficulty
    seed: int
    items: dict[str, int] = field(hash=False, repr=False)  # example id -> the generator's item number

    def __call__(self, example: Example, generated: str) -> float:
        dataset = _dataset(self.generator, self.difficulty, self.seed)
        entry = dataset[self.items[example.id]]
        if len(numbers_in(entry["answer"])) == 1 < len(numbers_in(generated)):
            return 0.0  # some scorers read the first number of a text, and never the others
        if self.generator == "complex_arithmetic" and "nan" in generated.lower():
            return 0.0  # its scorer takes "nan" for right: no distance to it is above the tolerance
        try:
            return float(dataset.score_answer(without_full_stop(generated), entry) == 1.0)
        except (ValueError, TypeError, ArithmeticError):  # some scorers parse without a guard
            return 0.0


def task_names(instances: int | None) -> list[tuple[str, str]]:
    """(task name, family) of every task: one task per family, of the same name."""
    if instances is not None:
        raise UserError(Fault("only one task per family", "suite math-science: instances", instances, "unset"))
    return [(name, name) for name in (*GENERATORS, *science.FAMILIES)]


def build(request: Request, instances: int | None) -> list[Task]:
    """All tasks; UserError names every one that has too few distinct examples."""
    tasks: list[Task] = []
    faults = Faults()
    for name, _ in task_names(instances):
        examples, verifier = (_from_gym if name in GENERATORS else _from_science)(name, request)
        if len(examples) < request.total and (name in request.only or not request.only):
            faults.append(too_few(name, request, len(examples)))
            continue
        test, pool = tuple(examples[: request.test_examples]), tuple(examples[request.test_examples :])
        tasks.append(Task(name, pool=pool, test=test, family=name, verifier=verifier))
    faults.raise_if_any()
    return tasks


def _from_science(name: str, request: Request) -> tuple[list[Example], Verifier]:
    stream = science.examples(name, request.difficulty, named_rng(request.seed, "math-science", name))
    return draw_distinct(stream, request.total, key=_prompt_key), science.family_verifier(name)


def _from_gym(name: str, request: Request) -> tuple[list[Example], Verifier]:
    seed = named_seed(request.seed, "math-science", name)
    dataset = _dataset(name, request.difficulty, seed)
    items: dict[str, int] = {}

    def stream() -> Iterator[Example]:
        for number in range(ITEMS):
            entry = dataset[number]
            if _is_usable(dataset, entry):
                example = Example(f"Question: {_compact(entry['question'])}\nAnswer:", f" {entry['answer']}")
                items.setdefault(example.id, number)
                yield example

    examples = draw_distinct(stream(), request.total, key=_prompt_key)
    kept = {example.id: items[example.id] for example in examples}
    return examples, GymVerifier(name, request.difficulty, seed, kept)


def _is_usable(dataset: Any, entry: dict[str, Any]) -> bool:
    """Short enough, and the generator's scorer accepts its own answer (a few are blank or misread)."""
    return len(entry["question"]) <= LONGEST_QUESTION and dataset.score_answer(entry["answer"], entry) == 1.0


def _prompt_key(example: Example) -> str:
    return example.prompt_key


def _compact(question: str) -> str:
    text = " ".join(_CLOSING.sub("", _OPENING.sub("", question.strip())).split())
    return text[:1].upper() + text[1:]


@lru_cache(maxsize=256)
def _dataset(name: str, difficulty: Difficulty, seed: int) -> Any:
    config = GENERATORS[name][DIFFICULTIES.index(difficulty)]
    return demo_import("reasoning_gym").create_dataset(name, size=ITEMS, seed=seed, **config)
