"""The verbs of what a run learned: adapt it, score it, export it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from innerloop.cli.common import CHECK_FAILED, Json, Run, columns_of, resumable, say, uncollected
from innerloop.errors import Faults
from innerloop.progress import busy


def adapt(
    run: Run,
    examples: Annotated[
        Path,
        typer.Argument(help="The new task's examples: JSONL, CSV, Parquet or JSON; or a folder with a file per task."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Where the adapted adapter or model goes; of a folder's tasks, into OUTPUT/TASK."),
    ] = None,
    prompt: Annotated[
        list[str], typer.Option(help="A prompt to answer: text, or a JSON list of messages. Repeatable.")
    ] = [],  # noqa: B006
    test: Annotated[
        Path | None,
        typer.Option(help="Test examples, or a folder of them by task, to judge on; by default the examples left out."),
    ] = None,
    judge: Annotated[
        bool | None,
        typer.Option(
            "--judge/--no-judge",
            help="Score it beside the base model, in-context examples and a fresh LoRA; by default where there are two "
            "examples or more.",
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            help="Inner steps, or auto: as many as do best on left-out examples; by default the run's number."
        ),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="The inner learning rate; by default the run's.")] = None,
    tuned: Annotated[
        bool,
        typer.Option("--tuned", help="The rate and steps that `innerloop eval` chose on the run's validation tasks."),
    ] = False,
    column: Annotated[
        list[str], typer.Option(help="Our field's name for a column: --column question=Question; by default the run's.")
    ] = [],  # noqa: B006
    base: Annotated[str | None, typer.Option(help="Where the run's base model is now, if it was moved.")] = None,
    json_: Json = False,
) -> None:
    """Adapt a run's initialization to a new task, or to each task of a folder, and say what that was worth."""
    with busy(f"reading {run}") as now, uncollected():
        from innerloop.comparison.adapt_arguments import AdaptArguments, check_arguments
        from innerloop.comparison.adapting import adapt_to
        from innerloop.comparison.expected import predicted, speed_of, work_of
        from innerloop.comparison.new_tasks import encoded_tasks
        from innerloop.runs.reloading import load_run

        how = {"steps": steps, "lr": lr, "tuned": tuned, "judge": judge, "columns": columns_of(column)}
        new, wanted, uses, judging = check_arguments(AdaptArguments(run, examples, test, output, tuple(prompt), **how))
        now.say("loading the model")
        learned = load_run(run, base=base)
        tasks = encoded_tasks(learned, new.tasks)
        speed = speed_of(learned)
        expected = predicted(work_of(learned, tasks, wanted, judging=judging), speed)
        if not json_:
            now.print(*new.notes, f"predicted {expected.said}; {speed.source}")
        adapted = adapt_to(learned, tasks, wanted, uses, judging=judging, say=now.say)
    facts = {**adapted.facts(), "notes": new.notes, "predicted": expected.facts(), "took": adapted.took.facts()}
    say(facts, "\n".join([*adapted.lines(), f"took {adapted.took.said}"]), as_json=json_)


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
        str | None,
        typer.Option(help="Of what is written: float32 (by default, an adapter), bfloat16 or float16."),
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
