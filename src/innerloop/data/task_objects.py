"""Tasks that are one JSON object: BIG-bench's task.json and Super-NaturalInstructions' files, as records.

records_of   the records of such an object, with where each stands in it; None where it is neither
"""

from collections.abc import Iterator, Mapping
from typing import Any

from innerloop.errors import Faults

QUESTION, ANSWER, CHOICE = "\nQ: ", "\nA: ", "\n  choice: "  # BIG-bench's own, where a task names no others
Placed = tuple[str, Any]  # "examples[3]", and a record of the form prompt, completion


def records_of(value: Mapping[str, Any], where: str, faults: Faults) -> list[Placed] | None:
    """What is wrong with an entry is added to the faults where no record can say it."""
    for key, read in (("examples", _big_bench), ("Instances", _natural_instructions)):
        entries = value.get(key)
        if isinstance(entries, list):
            placed: list[Placed] = []
            for index, entry in enumerate(entries):
                if isinstance(entry, dict):
                    placed += [(f"{key}[{index}]", record) for record in read(value, entry)]
                else:
                    faults.add("not an example", f"{where}: {key}[{index}]", entry, "an object")
            return placed
    return None


def _big_bench(task: Mapping[str, Any], example: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Prefixes and choices as BIG-bench writes them before a model; several targets, or best scores, are all right."""
    asked: Any = example.get("input")
    scores = example.get("target_scores")
    target = example.get("target")
    if isinstance(scores, dict) and scores and all(isinstance(score, int | float) for score in scores.values()):
        best = max(scores.values())
        target = [choice for choice, score in scores.items() if score == best] if target is None else target
        if _is_text(asked) and task.get("append_choices_to_input", True):
            asked += "".join(f"{task.get('choice_prefix', CHOICE)}{choice}" for choice in scores)
    before = f"{task.get('task_prefix', '')}{task.get('example_input_prefix', QUESTION)}"
    prompt = f"{before}{asked}{task.get('example_output_prefix', ANSWER)}".strip() if _is_text(asked) else asked
    yield {"prompt": prompt, "completion": _answers(target)}


def _natural_instructions(task: Mapping[str, Any], instance: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    definition = task.get("Definition", "")
    told = " ".join(definition) if isinstance(definition, list) and all(map(_is_text, definition)) else definition
    asked = instance.get("input")
    prompt = f"{told}\n\nInput: {asked}\nOutput:".strip() if _is_text(told) and _is_text(asked) else asked
    yield {"prompt": prompt, "completion": _answers(instance.get("output"))}


def _answers(value: Any) -> Any:
    """A space divides an answer from its prompt; what is no text is left for the reader to refuse."""
    if isinstance(value, list):
        return [f" {item.strip()}" if _is_text(item) and item.strip() else item for item in value]
    return f" {value.strip()}" if _is_text(value) and value.strip() else value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
