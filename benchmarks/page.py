"""docs/measurements.md, of the committed results: `python docs/generate.py` writes it, with tests/ on PYTHONPATH.

page       the whole of it
Section    a heading, what was done, and the tables of a result; "not yet measured" where there is none
"""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bounds import bounds_table
from demo import demo_tables
from gpu import gpu_table
from in_context import in_context_table
from nulls import nulls_table
from padding import padding_table
from race import race_table
from start import start_table
from trunk_pass import trunk_table

from robustness.faults import faults_table
from robustness.growth import growth_table

RESULTS = Path(__file__).parent / "results"
FIGURE = "\n![Seconds per step against what grows](../benchmarks/results/growth.svg)"

TITLE = """\
# Measurements

What was measured, with which command, and which aim was set, for wins and losses alike. Every number comes from a
file in [benchmarks/results](../benchmarks/results), which also has the single times, the hardware and the versions.
"""

RACES = """\
The time of one meta-step of `fomaml-lora` on SmolLM2-135M, beside other ways to take the same step: 8 tasks x (3 + 1)
passes x 4 examples of at most 64 tokens, LoRA r=16 on all linear modules, float32. A contender is timed only after it
gave the same loss and outer gradient, to 1e-5. All take turns on the same batches. The table has medians, and the
ratio of their time to ours. Rows `trunk` have LoRA on the last layers only, with the hidden states below them cached.
The row `lora` is not a meta-step but two steps of one adapter, each on 8 examples of GSM8K. The contenders and rows
are described in [race.py](../benchmarks/race.py), [contenders.py](../benchmarks/contenders.py) and
[trainers.py](../benchmarks/trainers.py).
"""


FAULTS = """\
Runs are killed or damaged and then continued with `--resume auto` ([stopping and going on](resume.md)). `equal`
counts runs that end like an undisturbed one: the same tensors, byte for byte, and the same metrics and manifest
except for `timing` and `host`. `data lost` and `corrupt accepted` have to be 0.
[faults.py](../tests/robustness/faults.py) says what each row does, and its name.
"""


COMPILED = """\
The time of an outer step of `fomaml-lora` with one inner step, on SmolLM2-135M in float32, without and with
torch.compile of its decoder layers: CPU seconds of one thread, medians of five turns. `gain` is the time that a
compiled step saves (median over turns), `compiling` the wall-clock seconds before the first step. Compiling is no
longer an option ([note](design/0017-no-compiled-layers.md)).
"""


class Section(NamedTuple):
    """words: the first line of the script's own docstring and more; tables: of the result."""

    title: str
    result: str
    command: str
    words: str
    tables: Callable[[dict[str, Any]], list[str]]


def page(results: Path = RESULTS) -> str:
    return "\n".join([TITLE, *(_section(section, results) for section in SECTIONS)])


def _section(section: Section, results: Path) -> str:
    path = results / f"{section.result}.json"
    parts = [f"## {section.title}\n", section.words, f"```bash\n{section.command}\n```\n"]
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        parts += ["\n".join(section.tables(found)) + "\n", f"{_where(found)}: [{path.name}]({_link(path)}).\n"]
    else:
        parts += ["\n".join(gpu_table(None)) + "\n" if section.result == "gpu" else "Not yet measured.\n"]
    return "\n".join(parts)


def _link(path: Path) -> str:
    return f"../benchmarks/results/{path.name}"


def _where(found: dict[str, Any]) -> str:
    """Date, machine, versions and commit, as `record.header` had them; where every row has its own, all there are."""
    headers = [found] if "date" in found else [row["environment"] for row in found["rows"].values()]
    commits = list(dict.fromkeys(f"`{header['commit']}`" for header in headers))
    said = [_dates(headers), *dict.fromkeys(map(_machine, headers))]
    return f"{', '.join(said)}, {'commits' if len(commits) > 1 else 'commit'} {', '.join(commits)}"


def _dates(headers: list[dict[str, Any]]) -> str:
    dates = sorted(header["date"] for header in headers)
    return dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"


def _machine(header: dict[str, Any]) -> str:
    machine = header["cuda"] or f"{header['cores']} cores of an {header['cpu']}"
    return ", ".join([machine, *(f"{name} {header['packages'][name]}" for name in ("torch", "transformers", "peft"))])


def race_tables(found: dict[str, Any]) -> list[str]:
    lines = race_table(found)
    mixed = found["rows"].get("mixed lengths")
    if mixed:
        data = mixed["data"]
        histogram = ", ".join(f"{span}: {count}" for span, count in data["histogram"].items())
        lines += [
            "",
            f"Lengths in the row `mixed lengths`, tokens: examples. {histogram}. Useful tokens of all that went",
            f"through the model: {data['useful_padded']:.2f} padded, {data['useful_ours']:.2f} packed.",
        ]
    return lines


def memory_table(found: dict[str, Any]) -> list[str]:
    lines = ["| case | peak RSS, GB | above an idle process, GB | outer steps | commit |", "|---|--:|--:|--:|---|"]
    for name, row in found["rows"].items():
        sizes = f"{row['peak_rss'] / 1e9:.2f} | {row['used'] / 1e9:.2f}"
        lines.append(f"| {name} | {sizes} | {row['outer_steps']} | `{row['commit']}` |")
    lines += ["", "| peak RSS of | beside | ratio | aim |", "|---|---|--:|--:|"]
    for ratio in found["ratios"]:
        aim = f"at most {ratio['target']:.2f}" if ratio["target"] else ""
        lines.append(f"| {ratio['case']} | {ratio['beside']} | {ratio['peak_rss']:.2f} | {aim} |")
    return lines


def plan_table(found: dict[str, Any]) -> list[str]:
    """A row an architecture: how many plans were within 10 % or 64 MB, and the farthest."""
    lines = ["| architecture | plans | within 10 % or 64 MB | from | to |", "|---|--:|--:|--:|--:|"]
    names = dict.fromkeys(row["config"] for row in found["rows"])
    for name in names:
        rows = [row for row in found["rows"] if row["config"] == name]
        taken = [row["measured"] if "measured" in row else row["allocated"] for row in rows]
        off = [100 * (row["planned"] / each - 1) for row, each in zip(rows, taken, strict=True)]
        within = sum(abs(row["planned"] - each) <= max(0.1 * each, 64e6) for row, each in zip(rows, taken, strict=True))
        family = name.removesuffix("Config")
        lines.append(f"| {family} | {len(rows)} | {within} | {min(off):+.1f} % | {max(off):+.1f} % |")
    return lines


def compiled_table(found: dict[str, Any]) -> list[str]:
    """A row a case: medians of both ways, and what compiling the layers took."""
    lines = ["| outer step | plain, s | compiled, s | gain | aim | compiling, s |", "|---|--:|--:|--:|--:|--:|"]
    for name, each in found["rows"].items():
        medians = " | ".join(f"{statistics.median(taken):.2f}" for taken in each["seconds"].values())
        gain, aim = f"{100 * each['gain']:+.1f} %", f"{100 * found['aim']:g} %"
        lines.append(f"| {name} | {medians} | {gain} | {aim} | {each['compiling']:.0f} |")
    return lines


SECTIONS = [
    Section(
        "Verdicts on nulls",
        "statistics",
        "python benchmarks/nulls.py --output benchmarks/results/statistics.json    # half a minute",
        "How often a [comparison](compare.md) says that two arms differ although they don't. The difference of the\n"
        "arms for a task and a training seed is simulated as the sum of a part of the task, a part of the seed (the\n"
        "same for all tasks), and a rest; the rows have the standard deviations of these three. The test is the\n"
        "library's own.\n",
        nulls_table,
    ),
    Section(
        "Demo",
        "demo",
        "python benchmarks/demo.py --folder /tmp/demo --output benchmarks/results/demo.json    # a quarter of an hour",
        "`make demo` with three training seeds: unseen tasks with 8 examples each, and every arm under every\n"
        "adaptation. Each cell has the loss per answer token (nats) and the share of exact answers. META-LORA and\n"
        "joint LoRA were trained on the same number of tokens. `META-LORA's` is the inner loop that META-LORA was\n"
        "trained with; `tuned` has learning rate and steps chosen on validation tasks. Std LoRA without a step is\n"
        "the base model. Differences are paired by task and seed.\n",
        demo_tables,
    ),
    Section(
        "In context",
        "in_context",
        "python benchmarks/in_context.py FOLDER --rows /tmp/rows.json    # half an hour",
        "How well SmolLM2-135M, without further training, answers ten word tasks from 8 examples in its prompt: the\n"
        "[arm](compare.md) that a trained one has to beat. An answer ends at the blank line that separates the\n"
        "examples; in the second column it ends only at an end token, which these prompts never show.\n",
        in_context_table,
    ),
    Section(
        "Bounds",
        "bounds",
        "python benchmarks/bounds.py    # half an hour",
        "Memory and time of one step of adaptation of SmolLM2-135M, as `innerloop adapt` takes it, on examples of 500\n"
        "tokens. The aim is less than 4 GB for 300 examples.\n",
        bounds_table,
    ),
    Section(
        "Below a trunk cut",
        "trunk_pass",
        "python benchmarks/trunk_pass.py --output benchmarks/results/trunk_pass.json    # two minutes",
        "The speed of the first pass through the lowest 22 layers of SmolLM2-135M (tokens per CPU second), with one\n"
        "example at a time and with the examples of a task together ([note](design/0013-companies-below-a-cut.md)).\n",
        trunk_table,
    ),
    Section(
        "Races",
        "race",
        "pip install torchopt trl    # and learn2learn's unpacked source archive on PYTHONPATH\n"
        "python benchmarks/race.py --gsm8k FOLDER --output benchmarks/results/race.json    # an hour",
        RACES,
        race_tables,
    ),
    Section(
        "Useful tokens",
        "padding",
        "python benchmarks/padding.py --gsm8k FOLDER --output benchmarks/results/padding.json    # half a minute",
        "The share of tokens that belong to examples, of all tokens that go through the model, on GSM8K.\n",
        padding_table,
    ),
    Section(
        "Growth",
        "growth",
        "export PYTHONPATH=tests:benchmarks\n"
        "python -m robustness.growth --output benchmarks/results/growth.json    # 12 minutes",
        "How the seconds per step of `fomaml-lora` grow with one quantity while the others stay the same: Llama\n"
        "shapes, random weights, float32. With a slope of 1, time is proportional to the quantity.\n",
        lambda found: [*growth_table(found), FIGURE],
    ),
    Section(
        "Start",
        "start",
        "python benchmarks/start.py --output benchmarks/results/start.json",
        "The time from the command `innerloop train` to the first step, for SmolLM2-135M with warm caches.\n",
        start_table,
    ),
    Section(
        "On a GPU",
        "gpu",
        "python benchmarks/gpu.py --output benchmarks/results/gpu.json    # at most 8 minutes",
        "The speed of training on Llama-3.2-1B's shape with random weights, in bfloat16, without compilation.\n",
        gpu_table,
    ),
    Section(
        "Faults",
        "faults",
        "export PYTHONPATH=tests:benchmarks\n"
        "python -m robustness.faults --output benchmarks/results/faults.json    # an hour on one core\n"
        "python -m robustness.faults --rows kills --output benchmarks/results/faults.json    # one row of it",
        FAULTS,
        faults_table,
    ),
    Section(
        "Compiled layers",
        "compiled",
        "git checkout ba15c40 && "
        "python benchmarks/compiled.py --output benchmarks/results/compiled.json    # 15 minutes",
        COMPILED,
        compiled_table,
    ),
    Section(
        "Compiled layers on a GPU",
        "compiled-cuda",
        "git checkout ba15c40 && python benchmarks/compiled.py --cuda --output benchmarks/results/compiled-cuda.json",
        "The same on a GPU, in wall-clock seconds.\n",
        compiled_table,
    ),
    Section(
        "Memory",
        "memory",
        "python benchmarks/memory.py --output benchmarks/results/memory.json    # half an hour",
        "The peak memory of `fomaml` on SmolLM2-135M's shape: 4 tasks x (3 + 1) passes x 8 examples x 64 tokens,\n"
        "two outer steps, on the CPU. [memory.py](../benchmarks/memory.py) describes the cases.\n",
        memory_table,
    ),
    Section(
        "Plans",
        "plan-cpu",
        "PYTHONPATH=tests python benchmarks/plan.py --output benchmarks/results/plan-cpu.json    # 15 minutes",
        "The peak memory that a [plan](plan.md) predicts, compared with the resident set of a process that takes\n"
        "the step: every method, with and without checkpointing, on models of 17 million parameters.\n",
        plan_table,
    ),
    Section(
        "Plans on a GPU",
        "plan-cuda",
        "PYTHONPATH=tests python benchmarks/plan.py --cuda --output benchmarks/results/plan-cuda.json",
        "The same on Llama-3.2-1B's shape at 8 x 512 tokens per pass, bfloat16.\n",
        plan_table,
    ),
]


if __name__ == "__main__":
    print(page(), end="")
