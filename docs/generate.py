"""Writes methods.md from the table of methods, cli.md from --help, measurements.md from benchmarks/results.

python docs/generate.py            write them
python docs/generate.py --plan     write the predicted table of docs/plan.md as well: about a minute
python docs/generate.py --check    write nothing; exit 1 where a page is not what would be written
"""

import argparse
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from innerloop import cli
from innerloop.config.loading import load_config
from innerloop.config.schema import ABSENT, KEYS, get
from innerloop.learning import methods
from innerloop.learning.methods import METHODS, Method
from innerloop.spaces.kinds import KINDS, SpaceOptions
from innerloop.spaces.space import Trained

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WIDTH = 100  # columns of a --help screen

# The shapes of SmolLM2-135M's tensors; counting needs no weights.
SMOLLM2 = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}

# What the table of docs/plan.md is about: one task of 8 examples of 512 tokens per pass.
LLAMA: dict[str, Any] = {
    "model": {"name": "meta-llama/Llama-3.2-1B", "dtype": "bfloat16"},
    "tasks": {"suite": "hidden-rules", "held_out": ["affine"]},
    "memory": {"tasks_per_forward": 1},
    "output_dir": "runs/llama",
}
CHECKPOINTED = "memory.checkpointing=true"
PLANNED = {
    "as it is": [],
    "checkpointed": [CHECKPOINTED],
    "and offloaded": [CHECKPOINTED, "memory.offload=true"],
    "or lean": [CHECKPOINTED, "memory.lean=true"],
    "or both": [CHECKPOINTED, "memory.lean=true", "memory.offload=true"],
}
EIGHT_A_PASS = ["tasks.support=4", "tasks.query=4"]  # where there is no inner loop, both go through in one
EIGHT_IN_A_PROMPT = ["tasks.support=7"]
TABLE_BEGIN, TABLE_END = "<!-- table: begin, by `python docs/generate.py --plan` -->", "<!-- table: end -->"

INTRO = """\
# Methods

A method combines a rule (how tasks give a gradient of the shared values) with a space (which tensors are trained).
`method.name` in a config names one. A method accepts only the options that it reads: any other is an error
([config](config.md)).
"""

COUNTED = """\
The numbers are for SmolLM2-135M, which has {total:,} parameters, and for the default LoRA: rank {rank} on all
{modules} linear modules of all layers. `method.lora.r`, `layers` and `target_modules` make it smaller. Before its
first step a run prints what it trains, and writes it to its manifest. {one_task} trains one adapter for each task of
`tasks.held_out`; the other methods train one set of values for all training tasks.
"""

SYMBOLS = """\
## The rules

{legend}

K is `method.inner.steps`, and n is `outer.tasks_per_step`. Where `method.inner.steps` is a list, each outer step draws
its K from it, a pure function of the seed and the step's number. Passes are counted for one outer step. One gradient is
one forward and backward pass of a task's examples; with LoRA several tasks share a pass. A Hessian-vector product does
the arithmetic of about three gradients where all parameters are trained, of about two with LoRA. It needs attention in
plain operators, whose memory grows with the square of the length.
"""

START = """\
## Inner loops that leave a good start

A start that is trained for K steps of one rate alone may be worse than the base model at any other K. These options are
all off by default, and each is read only by the methods whose gradient it changes:

- **A drawn number of steps**, `method.inner.steps: [0, 1, 3, 5]`: each outer step draws its K. With K = 0 the gradient
  is that of the query loss at theta. Adapting takes the largest.
- **A warm-up of the inner rate**, `method.inner.warmup`: over so many outer steps the rate of every inner step rises
  from a tenth of `method.inner.optimizer.lr` to all of it, on a line.
- **An anchor**, `method.inner.anchor: a`: the support loss at theta counts, too, on the batch of the first inner step.
  Nothing is added where an outer step draws K = 0.

  ```text
  g = mean_i [ query term + a * grad L(theta; S_i) ]
  ```

  Passes: n gradients more.
- **A multi-step loss**, `method.inner.multi_step: m`: the query loss after every inner step counts, as in MAML++
  (Antoniou et al. 2019, arXiv:1810.09502, section 4), here with a linear course to zero. At outer step s (from 0), r is
  max(0, 1 - s / m):

  ```text
  g = mean_i sum_k w_k J_ik^T grad L(phi_ik; Q_i)     w_k = r / K for k < K,  w_K = 1 - r (K - 1) / K
  ```

  First-order methods take J as the identity, `maml` and `maml-lora` have it exactly. Passes: n * (K - 1) gradients more
  in the first m outer steps, which count in `metrics.jsonl`, in `plan` and against a budget of tokens.
- **Fresh minibatches**, `method.inner.batch_size` below `tasks.support`: each inner step reads the next examples of the
  support, in turn.
"""

PART = """\
## Which part adapts

`method.inner.train` divides theta into a part that adapts to each task and the rest, which is meta-learned and the same
for all tasks (ANIL: Raghu et al. 2020, arXiv:1909.09157, section 4, where the part is the head). `lora-b` adapts
LoRA's B over a shared A, `last-N` what is trained of the last N decoder layers. With theta = (a, b), where b adapts:

```text
phi_i = (a, adapt(b; a, S_i))                       clipping and moments are those of b alone
g     = mean_i grad L(phi_i; Q_i)                   of both parts
```

`maml` and `maml-lora` take the exact derivative, with what a changes of b's gradients. Adapting later moves the same
part, and an export is complete. Reptile, which learns from what moved, doesn't read it.
"""

RATES = """\
## Learned inner rates

`method.inner.learned_rates` learns, beside the shared values, a factor on what each inner step moves: of each tensor
(`tensor`), of each tensor and step (`tensor-step`: LSLR of MAML++, Antoniou et al. 2019, arXiv:1810.09502, section 4),
or of each entry (`entry`: Meta-SGD, Li et al. 2017, arXiv:1707.09835, equation 3). The factor is exp(rho), so it stays
positive, and rho begins at 0: learning starts from the optimizer's rate, with its `loraplus_lr_ratio` and its warm-up.

```text
phi_k+1   = phi_k + exp(rho) * (step(phi_k) - phi_k)            step = the inner optimizer's, SGD's or AdamW's
d / d rho ~ mean_i < grad L(phi_iK; Q_i), how far the steps of this rho moved phi_i >
```

The derivative is of first order: it takes the directions of later steps as they are, and needs no pass more. `maml` and
`maml-lora`, whose derivatives are exact, don't read the option, and `reptile` and `reptile-lora` have no query loss to
learn it from. An AdamW of its own moves rho, with `outer.rates_lr` under `outer.schedule`. A run writes what it learned
to `inner_rates.safetensors`; `adapt`, `eval` and `load_run` use it. A step that training never took has the last one's.
"""

DIFFERENCE = """\
## How FOMAML-LoRA and META-LORA differ

Their gradients don't differ. Given the same examples and settings, both compute the same first-order outer gradient,
bit for bit, as `tests/learning/test_methods.py` checks. They differ in their defaults, and only `meta-lora` can keep
the adapters of stage 1:

{table}
Other differences that are described in their papers are settings here, and both methods read them. For a round over
all tasks, set `outer.tasks_per_step` to the number of tasks. For a new minibatch in each inner step, set
`method.inner.batch_size` below `tasks.support`. For less data, set `tasks.examples_per_task`. If one of the two is
better on your tasks, one of these settings is the reason.
"""

CHOICE = """\
## How to choose

1. **`joint-lora` is the baseline to beat.** It has no inner loop and takes one gradient per task. Networks that are
   trained jointly come close to gradient-based meta-learning, in theory for deep networks, and on few-shot image
   benchmarks ([arXiv:2106.09017](https://arxiv.org/abs/2106.09017)). In a comparison, give it as many tokens as the
   other methods, and adapt it, too.
2. **If the prompt tells the task, there may be nothing to gain.** One model can then solve all training tasks
   without adapting, and meta-training may find this solution
   ([arXiv:1912.03820](https://arxiv.org/abs/1912.03820)). `tests/learning/test_methods_controls.py` has a case of each
   kind.
3. **An inner loop that hardly moves is joint training.** With an inner learning rate of 0, all first- and
   second-order methods follow the gradient of the query loss at the shared values. In `metrics.jsonl`,
   `support_loss_last` has to be below `support_loss_first`. If it is not, raise `method.inner.optimizer.lr` or
   `method.inner.steps`. `inner_moved` says how far the steps went, over the norm of the shared values.
4. **Reptile on LoRA moves the factors, not their product.** The mean of the tasks' B A is not (mean B)(mean A),
   and an update has many factorizations.
5. **Examples in the prompt and gradient steps add up.** `in-context-lora` learns from prompts of many examples, every
   answer given those before it, and keeps a task's examples in its prompts; a few steps on prompts that each leave one
   out come on top. One seed says so, which is no verdict ([note](design/0022-answers-in-one-prompt.md)).
   `tasks.prompt: in-context` does the same under the other methods. A request then costs the tokens of the examples,
   too.
6. **Adapt with the optimizer that you trained with.** `innerloop adapt` uses the run's own number of steps, optimizer
   and learning rate, because the initialization was trained for these.
7. **A start for one inner loop alone, or a start that is good.** With a fixed number of steps, training may move the
   start to where exactly so many steps lead to a good place; then it is worse than the base model without any step, or
   with another rate. A run warns of it: after 16, 32, 64, ... outer steps it looks at its first support examples again.
   `method.inner.steps: [0, 1, 3, 5]` draws the number for each outer step, 0 among them, and the
   start has to be good under all of them.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where a page is stale")
    parser.add_argument("--plan", action="store_true", help="trace the table of plan.md again")
    options = parser.parse_args(arguments)
    if not options.check:
        for name, text in pages().items():
            (DOCS / name).write_text(text, encoding="utf-8")
        if options.plan:
            path = DOCS / "plan.md"
            path.write_text(with_table(path.read_text("utf-8"), plan_table()), encoding="utf-8")
        return 0
    outdated = stale(DOCS, pages())
    for name in outdated:
        print(f"docs/{name} is stale: run `python docs/generate.py`", file=sys.stderr)
    return 1 if outdated else 0


def pages() -> dict[str, str]:
    """File name -> what it has to hold."""
    return {"methods.md": methods_page(), "cli.md": cli_page(), "measurements.md": measurements_page()}


def measurements_page() -> str:
    """Of benchmarks/page.py, which stands among the scripts whose tables it prints, and reads tests/robustness."""
    paths = filter(None, [str(ROOT / "tests"), os.environ.get("PYTHONPATH")])
    child = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(ROOT / "benchmarks" / "page.py")]
    return subprocess.run(command, env=child, check=True, capture_output=True, encoding="utf-8").stdout


def stale(folder: Path, wanted: dict[str, str]) -> list[str]:
    """The pages that `folder` lacks or holds with another text."""
    paths = {name: folder / name for name in wanted}
    return [n for n, path in paths.items() if not path.is_file() or path.read_text("utf-8") != wanted[n]]


def methods_page() -> str:
    sizes = trained_sizes()
    rows = [_overview(name, sizes[METHODS[name].space.name]) for name in METHODS]
    header = ("method", "rule", "trains", "parameters", "of the model", "reads")
    lora, total = sizes["lora"], sizes["all"].parameters
    rank = _resolved("lora")["method"]["lora"]["r"]
    one_task = _names([name for name, row in METHODS.items() if row.one_task])
    counted = COUNTED.format(total=total, rank=rank, modules=len(lora.modules), one_task=one_task)
    symbols = SYMBOLS.format(legend=_found(r"Legend: (.*?)\n\n", methods.__doc__))
    rules = [_rule_section(rule) for rule in dict.fromkeys(row.rule for row in METHODS.values())]
    difference = DIFFERENCE.format(table=_differences("fomaml-lora", "meta-lora"))
    return "\n".join([INTRO, _table(header, rows), counted, symbols, *rules, START, PART, RATES, difference, CHOICE])


def cli_page() -> str:
    """Every verb's own --help."""
    import typer

    verbs: list[str] = [*typer.main.get_command(cli.app).commands]  # pyright: ignore[reportAttributeAccessIssue]
    codes = " ".join(_found(r"Exit codes: (.*?)\.", cli.__doc__).split())
    parts = [
        "# The command line\n\nWhat `innerloop --help` and each verb's `--help` say.\n",
        f"Exit codes: {codes}.\nAn error is a message on standard error, never a traceback.\n",
        _help(),
        *(f"## {verb}\n\n{_help(verb)}" for verb in verbs),
    ]
    return "\n".join(parts)


def with_table(page: str, table: str) -> str:
    """The page with another table between its two marks."""
    before, _, rest = page.partition(TABLE_BEGIN)
    return f"{before}{TABLE_BEGIN}\n\n{table}\n{TABLE_END}{rest.partition(TABLE_END)[2]}"


def plan_table() -> str:
    header = ("method", *(f"{name}, GB" for name in PLANNED), "how it is known")
    return _table(header, [(f"`{name}`", *planned(name), "predicted") for name in METHODS])


def planned(method: str, settings: Sequence[str] = tuple(PLANNED)) -> list[str]:
    """Predicted GB of Llama-3.2-1B under each of the settings, allocator slack aside; a dash where it has none."""
    from innerloop.errors import UserError
    from innerloop.planning.devices import DEVICES
    from innerloop.planning.forecast import forecast
    from innerloop.planning.workload import workload_of

    cells: list[str] = []
    together = EIGHT_A_PASS if METHODS[method].reads_query else EIGHT_IN_A_PROMPT
    one_pass = [] if "inner" in METHODS[method].rule.options() else together
    for setting in settings:
        try:
            config = load_config({**LLAMA, "method": {"name": method}}, [*one_pass, *PLANNED[setting]])
        except UserError:
            cells.append("-")
        else:
            cells.append(f"{forecast(workload_of(config, kind='cuda'), DEVICES['h200']).footprint.peak / 1e9:.2f}")
    return cells


def trained_sizes() -> dict[str, Trained]:
    """What each set of tensors counts, on a model without storage."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**SMOLLM2))
    return {name: kind.make(model, SpaceOptions()).trained() for name, kind in KINDS.items()}


def _overview(name: str, trained: Trained) -> tuple[str, ...]:
    row = METHODS[name]
    return (
        f"`{name}`",
        row.title,
        row.space.title,
        f"{trained.parameters:,}",
        f"{trained.percent:.2f} %",
        "support, query" if row.reads_query else "support",
    )


def _rule_section(rule: type[Method]) -> str:
    """The rule's docstring, its options, and the inner loop of each of its methods."""
    names = [name for name, row in METHODS.items() if row.rule is rule]
    title, mathematics, *notes, passes = (inspect.getdoc(rule) or "").split("\n\n")
    lora = [name for name in names if METHODS[name].space.reads_lora]
    options = [f"`method.{option}`" for option in sorted(rule.options())]
    options.append("`method.lora`" + (f" ({_names(lora)})" if lora != names else ""))
    lines = [f"### {_names(names)}\n", f"{title}\n", f"```text\n{inspect.cleandoc(mathematics)}\n```\n"]
    lines += [f"{note}\n" for note in notes]
    lines += [f"- {passes}", f"- Options: {', '.join(options)}."]
    inner = [(name, _resolved(name)["method"].get("inner")) for name in names]
    lines += [f"- Inner loop of `{name}`, by default: {_in_words(loop)}." for name, loop in inner if loop]
    return "\n".join(lines) + "\n"


def _in_words(inner: dict[str, Any]) -> str:
    optimizer, clip = inner["optimizer"], inner["clip"]
    betas = f", betas {optimizer['betas']}" if "betas" in optimizer else ""
    clipping = f"gradients clipped at norm {clip}" if clip else "no clipping"
    return f"{inner['steps']} steps of {optimizer['name']}, lr {optimizer['lr']}{betas}, {clipping}"


def _differences(left: str, right: str) -> str:
    """Every key whose default differs between two methods."""
    values = {key: (get(_resolved(left), key), get(_resolved(right), key)) for key in KEYS}
    rows = [
        (f"`{key}`", *("not read" if value is ABSENT else f"`{json.dumps(value)}`" for value in pair))
        for key, pair in values.items()
        if pair[0] != pair[1] and key != "method.name"
    ]
    return _table(("default of", f"`{left}`", f"`{right}`"), rows)


def _resolved(name: str) -> dict[str, Any]:
    """The config of a method for which nothing else was chosen."""
    required = {"model": {"name": "m"}, "tasks": {"suite": "hidden-rules"}, "output_dir": "runs/x"}
    return load_config(required | {"method": {"name": name}}).resolved()


def _help(*verb: str) -> str:
    from typer.testing import CliRunner

    said = CliRunner().invoke(cli.app, [*verb, "--help"], prog_name="innerloop", terminal_width=WIDTH)
    lines = [line.rstrip() for line in said.output.strip().splitlines()]
    return "```text\n" + "\n".join(lines) + "\n```\n"


def _found(pattern: str, text: str | None) -> str:
    """What a docstring says where the pattern has its group."""
    match = re.search(pattern, text or "", re.DOTALL)
    assert match, pattern
    return match[1]


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
