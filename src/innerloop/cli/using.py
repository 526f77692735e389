"""The verbs of what a run learned: adapt it, score it, export it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from innerloop.cli.common import CHECK_FAILED, Json, Run, columns_of, resumable, say, uncollected
from innerloop.errors import Faults
from innerloop.loading.models import DTYPES
from innerloop.progress import Busy, busy

if TYPE_CHECKING:
    from innerloop.comparison.judging import SideBySide
    from innerloop.runs.learned import Learned


def adapt(
    run: Run,
    examples: Annotated[Path, typer.Argument(help="The new task's examples: JSONL, CSV, Parquet or JSON.")],
    output: Annotated[Path | None, typer.Option(help="Where the adapted adapter or model goes.")] = None,
    prompt: Annotated[
        list[str], typer.Option(help="A prompt to answer: text, or a JSON list of messages. Repeatable.")
    ] = [],  # noqa: B006
    test: Annotated[
        Path | None,
        typer.Option(help="Test examples: score it beside the base model, in-context examples and a fresh LoRA."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Inner steps; by default the run's own number.")] = None,
    column: Annotated[
        list[str], typer.Option(help="Our field's name for a column: --column question=Question; by default the run's.")
    ] = [],  # noqa: B006
    base: Annotated[str | None, typer.Option(help="Where the run's base model is now, if it was moved.")] = None,
    json_: Json = False,
) -> None:
    """Adapt a run's initialization to a new task."""
    with busy(f"reading {run}") as now, uncollected():
        from innerloop.artifacts.export import check_place
        from innerloop.artifacts.finished import finished
        from innerloop.runs.reloading import load_run

        columns = columns_of(column)
        faults = Faults()
        for given in (examples, test):
            if given and not given.exists():
                faults.add("there is no such file", str(given))
        with faults.collecting():
            finished(run)
        if output:
            with faults.collecting():
                check_place(output)
        faults.raise_if_any()
        now.say("loading the model")
        learned = load_run(run, base=base)
        now.say("adapting")
        adapted = learned.adapt(examples, steps=steps, columns=columns)
        answers = adapted.generate([_prompt(text) for text in prompt])
        judged = _judged(learned, examples, test, steps, columns, now) if test else None  # may refuse the test file
        if output:
            adapted.save_pretrained(output)
        nats, exact = adapted.score(examples, columns=columns)
        losses = [*adapted.losses, adapted.loss(examples, columns=columns)]
    inner = learned.inner
    said = {
        "steps": len(adapted.losses),
        "optimizer": type(inner.optimizer).__name__.lower(),
        "lr": inner.optimizer.lr,
        "support_loss": losses,
        "support_nats": nats,
        "support_exact": exact,
        "answers": dict(zip(prompt, answers, strict=True)),
        "output": str(output) if output else None,
        **({"test": judged.facts()} if judged else {}),
    }
    lines = [
        f"adapted in {said['steps']} steps of {said['optimizer']}, lr {inner.optimizer.lr}",
        f"support loss {losses[0]:.3f} -> {losses[-1]:.3f} nats per scored token; "
        f"{nats:.3f} per token of an answer, {exact:.0%} of its answers exact",
        *(f"{asked!r} -> {answer!r}" for asked, answer in zip(prompt, answers, strict=True)),
        *([f"wrote {output}"] if output else []),
        *(["", *judged.lines()] if judged else []),
    ]
    say(said, "\n".join(lines), as_json=json_)


def _judged(
    learned: "Learned", examples: Path, test: Path, steps: int | None, columns: dict[str, str] | None, now: Busy
) -> "SideBySide":
    from innerloop.comparison.judging import judge

    now.say("judging it on the test examples")
    inner = learned.inner if steps is None else replace(learned.inner, steps=steps)
    return judge(learned, examples, test, inner=inner, columns=columns)


def _prompt(text: str) -> Any:
    """A JSON list of messages is a conversation; anything else is the text itself."""
    if not text.lstrip().startswith("["):
        return text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, list) and found and all(isinstance(turn, dict) for turn in found) else text


def evaluate(
    run: Run,
    k: Annotated[list[int], typer.Option(help="Number of support examples. Repeatable.")] = [0, 5, 10, 25, 50],  # noqa: B006
    draws: Annotated[int, typer.Option(min=1, help="Draws of the support examples.")] = 5,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Most tokens of an answer; by default 8 more than the longest right one has."),
    ] = None,
    json_: Json = False,
) -> None:
    """Adapt a run to k examples of each task that it held out, and score the task's test examples."""
    go_on = "what was scored is kept, and the same command goes on from there"
    with busy(f"reading {run}") as now, resumable(go_on, now.where), uncollected():
        from innerloop.artifacts.finished import finished
        from innerloop.comparison.eval import evaluate, protocol_of, to_score
        from innerloop.report.terminal import one_run
        from innerloop.runs.reloading import load_run

        protocol = protocol_of(finished(run).config, k=k, draws=draws, max_new_tokens=max_new_tokens)
        ground = to_score(run, protocol, say=now.say)
        now.say("loading the model")
        folder, results = evaluate(load_run(run), protocol, now.say, ground=ground)
    lines = [*one_run(results), f"every score is in {folder}/"]
    say({"folder": str(folder), **results.contents()}, "\n".join(lines), as_json=json_)


def export(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run, or of an adapter.", show_default=False)],
    output: Annotated[Path | None, typer.Option(help="Folder for another copy.")] = None,
    merged: Annotated[bool, typer.Option("--merged", help="Merge the adapter into its base: a plain model.")] = False,
    gguf: Annotated[Path | None, typer.Option(help="File for the adapter as llama.cpp reads it.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help=f"Of what is written: {', '.join(DTYPES)}. An adapter is float32 by default.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Where the base model is, if it was moved or isn't named.")] = None,
    push_to_hub: Annotated[
        str | None, typer.Option(help="Upload what is written to this repository of the hub, you/name.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="The repository is private, if it is made now.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Reload with transformers and PEFT alone and compare logits.")
    ] = False,
    json_: Json = False,
) -> None:
    """Write an adapter or model once more, in other forms; check that transformers and PEFT read the same from it."""
    with busy(f"reading {run}") as now, uncollected():
        from innerloop.artifacts.export import check_place
        from innerloop.artifacts.hub import push_to_hub as upload
        from innerloop.artifacts.portable import Agreement, plain_adapter
        from innerloop.files import MANIFEST
        from innerloop.runs.reloading import load_run

        faults = Faults()
        if merged and not (output or push_to_hub):
            faults.add("a merged model is a folder of its own", "--merged", expected="--output: the folder")
        if dtype is not None and not (output or gguf or push_to_hub):
            faults.add("nothing is written", "--dtype", dtype, "--output or --gguf: where it goes")
        if private and not push_to_hub:
            faults.add("nothing is uploaded", "--private", expected="--push-to-hub you/name")
        if output:
            with faults.collecting():
                check_place(output)
        faults.raise_if_any()
        now.say("loading the model")
        said, how, agreement = dict[str, Any](), {"dtype": dtype, "merged": merged}, Agreement(0.0, 0.0)
        # In fewer bits two sound forwards differ by more than damage does, and a merged weight is rounded twice.
        exact = "float32" if merged or check else None
        if (run / MANIFEST).exists():
            learned = load_run(run, base=base, dtype=exact)
            portable, folder = learned.portable(), learned.exported
            learned.write_card()
        else:
            portable, folder = plain_adapter(run, base), run
        if output:
            folder = output
            portable.save(output, **how)
        said["folder"] = str(folder)
        if gguf:
            portable.save_gguf(gguf, dtype=dtype)
            said["gguf"] = str(gguf)
        if check:
            now.say("comparing logits")
            tokens = portable.model.tokenizer("The quick brown fox jumps", return_tensors="pt").input_ids
            agreement = portable.agreement(folder, tokens, **(how if output else {}))
            said["largest_logit_difference"], said["allowed"] = agreement
        if push_to_hub and agreement.difference <= agreement.allowed:
            now.say("uploading")
            said["hub"] = upload(push_to_hub, lambda place: portable.save(place, **how), private=private or None)
    say(said, "\n".join(f"{key.replace('_', ' ')}: {value}" for key, value in said.items()), as_json=json_)
    if not agreement.difference <= agreement.allowed:  # nor where it isn't a number
        raise typer.Exit(CHECK_FAILED)
