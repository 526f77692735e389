"""Tasks from public data whose prompts don't tell the task, and a config to train on them.

    git clone https://github.com/ericwtodd/function_vectors
    python examples/public_tasks.py words function_vectors runs/words
    git clone https://github.com/tdopierre/ProtAugment
    python examples/public_tasks.py intents ProtAugment runs/intents
    innerloop train runs/words/run.yaml

words    word pairs of Todd et al. (2310.15213, MIT): a task is a file of pairs such as antonyms or capitals. A concept
         (choose_first_of_3 and _5) is held out whole.
intents  BANKING77 with ProtAugment's split of its classes (2105.12995, Apache-2.0; the data CC-BY-4.0): a task sorts
         questions into a few classes under label words that are drawn for it, so that only its examples tell them.
         --split is one of the five that were published.

The folder gets a file of JSONL for each task and run.yaml, whose held-out and validation tasks follow from --seed.
"""

import argparse
import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from innerloop.data.suites.words import LABELS

Task = list[dict[str, str | list[str]]]  # records of a prompt and its completion, or all completions that are right
Roles = dict[str, dict[str, Task]]  # train, validation or held_out -> task -> its records

LEAST, MOST = 40, 400  # examples of a task
WORDS = {"validation": 4, "held_out": 10}  # tasks, at least: concepts stay whole
INTENTS = {"train": 96, "validation": 8, "held_out": 24}  # tasks
CLASSES, OF_A_CLASS = 4, 40  # classes of a task, and questions of a class
LONGEST_INPUT, LONGEST_OUTPUT, LONGEST_QUESTION = 60, 25, 100  # characters


def words(folder: Path, rng: random.Random) -> Roles:
    """Each file of word pairs that is long enough, once its long pairs are left out."""
    concepts: dict[str, dict[str, Task]] = defaultdict(dict)
    for path in sorted(folder.glob("*tractive/*.json")):
        outputs: dict[str, list[str]] = defaultdict(list)
        for pair in json.loads(path.read_text("utf-8")):
            if len(pair["input"]) < LONGEST_INPUT and len(pair["output"]) < LONGEST_OUTPUT:
                outputs[pair["input"]].append(f" {pair['output']}")
        if len(outputs) >= LEAST:
            shown = rng.sample(sorted(outputs), min(MOST, len(outputs)))
            records: Task = [
                {"prompt": f"Q: {word}\nA:", "completion": list(dict.fromkeys(outputs[word]))} for word in shown
            ]
            concepts[_concept(path.stem)][path.stem] = records
    order = rng.sample(sorted(concepts), len(concepts))
    chosen: Roles = {role: {} for role in WORDS}
    for role, least in WORDS.items():
        while order and len(chosen[role]) < least:
            chosen[role] |= concepts[order.pop()]
    train = {name: task for concept in order for name, task in concepts[concept].items()}
    return _without_known({"train": train, **chosen})


def _concept(name: str) -> str:
    """What tasks have in common that tell each other: the same choice of 3 words and of 5, the letters of a word."""
    return re.sub(r"_\d+$|^(capitalize|lowercase)_\w+_(?=letter$)", "", name)


def _without_known(roles: Roles) -> Roles:
    """Without the records of a role that an earlier one answers alike: two tasks may say the same of a word."""
    known: set[str] = set()
    left: Roles = {}
    for role, tasks in roles.items():
        left[role] = {name: [each for each in task if not known & _pairs(each)] for name, task in tasks.items()}
        known |= {pair for task in tasks.values() for record in task for pair in _pairs(record)}
    return left


def _pairs(record: dict[str, str | list[str]]) -> set[str]:
    return {f"{record['prompt']}{completion}".casefold() for completion in record["completion"]}


def intents(folder: Path, rng: random.Random) -> Roles:
    """Tasks of a few classes each, which no two roles share; the same words stand for others in another task."""
    roles: Roles = {}
    for role, file in (("train", "train"), ("validation", "valid"), ("held_out", "test")):
        questions: dict[str, list[str]] = defaultdict(list)
        for line in (folder / f"{file}.jsonl").read_text("utf-8").splitlines():
            row = json.loads(line)
            if len(row["sentence"]) < LONGEST_QUESTION:
                questions[row["label"]].append(" ".join(row["sentence"].split()))
        roles[role] = {f"{file}-{number:02}": _sorted_into(questions, rng) for number in range(INTENTS[role])}
    return roles


def _sorted_into(questions: dict[str, list[str]], rng: random.Random) -> Task:
    records: Task = []
    classes = rng.sample(sorted(questions), CLASSES)
    for name, label in zip(classes, rng.sample(LABELS, CLASSES), strict=True):
        shown = sorted(set(questions[name]))
        for question in rng.sample(shown, min(OF_A_CLASS, len(shown))):
            records.append({"prompt": f"{question}\nlabel:", "completion": f" {label}"})
    return rng.sample(records, len(records))


def write(roles: Roles, folder: Path) -> None:
    """A file for each task, and a config that names those that aren't trained on."""
    tasks = folder / "tasks"
    tasks.mkdir(parents=True)
    for name, records in (item for members in roles.values() for item in members.items()):
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        (tasks / f"{name}.jsonl").write_text("".join(lines), "utf-8")
    unseen = {role: sorted(roles[role]) for role in ("validation", "held_out")}
    config = {
        "model": {"name": "smollm2-135m-q4_1"},
        "tasks": {"folder": str(tasks), "support": 8, "query": 8, "test": 24, **unseen},
        "method": {"name": "fomaml-lora", "lora": {"layers": "last-8"}},
        "memory": {"trunk_cache": True},
        "output_dir": str(folder / "run"),
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")


READERS: dict[str, tuple[Callable[[Path, random.Random], Roles], str]] = {
    "words": (words, "dataset_files"),
    "intents": (intents, "data/BANKING77/few_shot/{split:02}"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=list(READERS))
    parser.add_argument("clone", type=Path, help="the repository, cloned")
    parser.add_argument("output", type=Path, help="a folder that is not there yet")
    parser.add_argument("--split", type=int, choices=range(1, 6), default=1)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args(arguments)
    read, inside = READERS[options.data]
    source = options.clone / inside.format(split=options.split)
    if not source.is_dir():
        parser.error(f"{source}: no such folder")
    if options.output.exists():
        parser.error(f"{options.output}: there already")
    roles = read(source, random.Random(options.seed))
    write(roles, options.output)
    print(", ".join(f"{len(members)} {role}" for role, members in roles.items()), "tasks:", options.output / "run.yaml")


if __name__ == "__main__":
    main()
