"""How well a model that nothing trained answers from examples in its prompt: the arm that trained ones have to beat.

    python benchmarks/in_context.py FOLDER --rows /tmp/rows.json     writes benchmarks/results/in_context.json

FOLDER has word tasks as lists of {input, output}, in files such as abstractive/antonym.json (the data of Todd et al.
2024, arXiv:2310.15213, are such). Ten unlike ones are measured, which were named before any was. Prompts read `Q: x`,
`A:`, blocks are divided by a blank line, and all of it goes through the code of a comparison's in-context arm.
`exact_to_the_end_token` is the same model on the first CONTROLS of them where only an end token ends an answer, as
before 0.2.0.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from record import header, write_result

from innerloop.data.encoder import Encoder
from innerloop.data.encoding import EncodedTask
from innerloop.data.tasks import Example, Task
from innerloop.evaluation.generation import answers, end_of
from innerloop.evaluation.in_context import in_context_task
from innerloop.evaluation.kshot import draw_support, score
from innerloop.evaluation.scoring import verified
from innerloop.loading.models import LoadedModel, load
from innerloop.numerics.tensors import per_task
from innerloop.spaces.lora import LoraSettings, LoraSpace
from innerloop.spaces.loss import AnswerLoss

RESULT = Path(__file__).parent / "results" / "in_context.json"
NAMES = (
    "antonym",
    "country-capital",
    "english-french",
    "person-occupation",
    "present-past",
    "singular-plural",
    "next_item",
    "capitalize_first_letter",
    "animal_v_object_5",
    "choose_last_of_5",
)
K, TESTS, CONTROLS, SEED = 8, 24, 8, 1


def task_of(file: Path, model: LoadedModel) -> EncodedTask:
    """The first TESTS records, in the order of their ids, are the test examples."""
    rows = json.loads(file.read_text(encoding="utf-8"))
    known: dict[str, Example] = {}
    for row in rows:
        example = Example(f"Q: {row['input']}\nA:", f" {row['output']}")
        known.setdefault(str(example.prompt_key), example)
    examples = sorted(known.values(), key=lambda example: example.id)
    task = Task(file.stem, tuple(examples[TESTS:]), tuple(examples[:TESTS]))
    return encoder_of(model).tasks([task])[0]


def in_context_table(found: dict[str, Any]) -> list[str]:
    lines = ["| task | exact | until an end token | nats | nats of stopping |", "|---|--:|--:|--:|--:|"]
    for task in found["tasks"]:
        right = f"{task['exact']:.3f} | {task['exact_to_the_end_token']:.3f}"
        lines.append(f"| {task['task']} | {right} | {task['nats']:.2f} | {task['stop_nats']:.2f} |")
    means = found["means"]
    return [*lines, f"| mean | {means['exact']:.3f} | {means['exact_to_the_end_token']:.3f} | {means['nats']:.2f} | |"]


def encoder_of(model: LoadedModel) -> Encoder:
    return Encoder(model.tokenizer, max_length=512, on_too_long="drop")


def measured(task: EncodedTask, model: LoadedModel) -> dict[str, Any]:
    space = LoraSpace(model.model, AnswerLoss(model.model), LoraSettings(r=1), seed=0)  # fresh: the model as it is
    values, started = per_task(space.shared, 1), time.process_time()
    shown = in_context_task(task, draw_support(task, K, seed=SEED), encoder_of(model))
    (scores,) = score(space, values, [shown])
    end = end_of(model.tokenizer)
    first = replace(task.task, test=task.task.test[:CONTROLS])
    endless = replace(shown, task=first, test=tuple(each._replace(stop=end) for each in shown.test[:CONTROLS]))
    (own,), (before,) = (answers(space, values, [each], tokenizer=model.tokenizer) for each in (shown, endless))
    right = verified(task.task, [answer.text for answer in own])
    wrong = verified(first, [answer.text for answer in before])
    return {
        "task": task.task.name,
        "n": len(shown.test),
        "exact": sum(right) / len(right),
        "exact_to_the_end_token": sum(wrong) / len(wrong),
        "nats": scores.mean_nats,
        "stop_nats": sum(scores.stop_nats) / len(scores.stop_nats),
        "cut": sum(answer.cut for answer in own),
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=Path, required=True, help="A file of rows: the script goes on where it stopped.")
    parser.add_argument("--model", default="smollm2-135m-q4_1")
    asked = parser.parse_args()
    model = load(asked.model, dtype="float32", device="cpu")
    kept = json.loads(asked.rows.read_text(encoding="utf-8")) if asked.rows.exists() else []
    known: dict[str, dict[str, Any]] = {row["task"]: row for row in kept}
    for name in NAMES:
        if name not in known:
            (file,) = asked.folder.glob(f"**/{name}.json")
            known[name] = measured(task_of(file, model), model)
            print(known[name], flush=True)
            asked.rows.write_text(json.dumps(list(known.values())), encoding="utf-8")
    rows = [known[name] for name in NAMES]
    means = {key: sum(row[key] for row in rows) / len(rows) for key in ("exact", "exact_to_the_end_token", "nats")}
    settings = {"prompt": "Q: x\nA:", "completion": " y", "between": "\n\n", "k": K, "seed": SEED}
    write_result(RESULT, {**header(model), "settings": settings, "means": means, "tasks": rows})


if __name__ == "__main__":
    main()
