"""What was trained in context keeps a task's examples in its prompts, wherever it is used."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from innerloop.comparison.judging import OURS, judge
from innerloop.data.tasks import Task
from innerloop.errors import UserError
from innerloop.numerics.optimizers import Sgd
from innerloop.runs.learned import Learned
from record_files import write
from small_runs import NAMES, World, records, small_run

EVE = records("eve")
SHOWN, ASKED = EVE[:3], EVE[3:7]


def talks(task: str) -> list[dict[str, Any]]:
    turns = [(row["prompt"], row["completion"].strip()) for row in records(task)]
    return [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
        for asked, answer in turns
    ]


@pytest.fixture(scope="module", params=["texts", "conversations"])
def learned(request: pytest.FixtureRequest, world: World, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    folder = tmp_path_factory.mktemp(request.param)
    changes: dict[str, Any] = {"tasks.support": 4}
    if request.param == "conversations":
        for name in NAMES:
            write(folder / f"{name}.jsonl", *talks(name))
        changes |= {"tasks.folder": str(folder)}
    return small_run(world, "in-context-lora", folder / "run", changes)


def given(learned: Learned, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In the form that the run learned from."""
    spoken = not learned.config.output_dir.parent.name.startswith("texts")
    return (
        [each for each in talks("eve") if each["messages"][0]["content"] in {r["prompt"] for r in rows}]
        if spoken
        else rows
    )


def test_adapting_takes_few_steps_on_prompts_that_leave_one_out(learned: Learned) -> None:
    assert learned.inner.optimizer == Sgd(lr=0.3, clip=1.0)
    adapted = learned.adapt(given(learned, SHOWN))
    assert len(adapted.losses) == 3
    assert adapted.kept is not None
    assert len(adapted.kept.pool) == 3
    assert adapted.losses[0] != pytest.approx(learned.unadapted.loss(given(learned, SHOWN)), rel=1e-3)


def test_examples_are_asked_behind_those_that_were_adapted_to(learned: Learned) -> None:
    adapted = learned.adapt(given(learned, SHOWN))
    nats, _ = adapted.score(given(learned, ASKED))
    alone, _ = replace(adapted, kept=learned.unadapted.kept).score(given(learned, ASKED))
    assert nats != pytest.approx(alone, rel=1e-3), "what stands before a prompt is read"
    assert nats == pytest.approx(adapted.score(given(learned, ASKED)[::-1])[0], rel=1e-4)
    fitted = learned.fitted(given(learned, SHOWN))
    for own, prompt in zip(fitted.pool, learned.encoder.behind(fitted, fitted), strict=True):
        text = learned.model.tokenizer.decode(prompt.tokens)
        asked = learned.model.tokenizer.decode(own.scored).removesuffix("<eos>")
        assert len(prompt.answers) == 1
        example = next(each for each in fitted.task.pool if each.id == own.id)
        assert text.count(example.asks.strip()) == 1, "an example never stands before itself"
        assert asked.strip() in text


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
def test_plain_peft_with_the_exported_examples_gives_the_same_answer(learned: Learned, tmp_path: Path) -> None:
    adapted = learned.adapt(given(learned, SHOWN))
    adapted.save_pretrained(tmp_path / "adapter")
    shown = json.loads((tmp_path / "adapter" / "in_context.json").read_text())
    assert "in_context.json" in (tmp_path / "adapter" / "README.md").read_text()
    tokenizer, prompt = learned.model.tokenizer, ASKED[0]["prompt"]
    if "prefix" in shown:
        ids = tokenizer(shown["prefix"] + prompt, add_special_tokens=False)["input_ids"]
        assert ids[: len(shown["prefix_ids"])] == shown["prefix_ids"]
        assert [each["prompt"] for each in shown["examples"]] == [each["prompt"] for each in SHOWN]
        end = shown["separator"]
    else:
        turns = [*shown["messages"], {"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        end = "<eos>"
    (start,) = learned.encoder.starts([prompt], adapted.form, kept=adapted.kept)
    assert list(start.tokens) == ids
    model = PeftModel.from_pretrained(learned.model.model, str(tmp_path / "adapter"))
    try:
        tokens = torch.tensor([ids])
        for _ in range(12):
            tokens = torch.cat([tokens, model(input_ids=tokens).logits[:, -1:].argmax(-1)], dim=1)
    finally:
        model.unload()
    written = tokenizer.decode(tokens[0, len(ids) :]).partition(end)[0].partition("<eos>")[0]
    assert adapted.generate([prompt], max_new_tokens=12) == [written]


def test_one_example_stands_in_the_prompt_and_leaves_nothing_to_step_on(learned: Learned) -> None:
    one = given(learned, SHOWN[:1])
    adapted = learned.adapt(one)
    assert adapted.losses == ()
    assert adapted.kept is not None
    assert len(adapted.kept.pool) == 1
    for name, value in adapted.values.items():
        assert torch.equal(value[0], learned.space.shared[name])
    with pytest.raises(UserError, match="too few examples to leave one out"):
        learned.adapt(given(learned, SHOWN[:2]), steps="auto")


def test_more_examples_than_in_training_warn_and_too_many_are_refused(learned: Learned) -> None:
    with pytest.warns(RuntimeWarning, match=r"5 examples in a prompt.*with 4 at most"):
        learned.adapt(given(learned, EVE[:5]))
    many = [{"prompt": f"{n}" + "x" * 60, "completion": " y"} for n in range(9)]
    if "texts" in learned.config.output_dir.parent.name:
        with pytest.raises(
            UserError, match=r"(?s)a prompt of 9 examples is too long.*which 7 of its longest examples fit"
        ) as caught:
            learned.adapt(many)
        assert caught.value.faults[0].value > 512


def test_it_is_judged_with_its_examples_in_its_prompts(learned: Learned) -> None:
    shown, asked = given(learned, SHOWN), given(learned, ASKED)
    pool, test = (tuple(learned.encoder.examples(rows)) for rows in (shown, asked))
    tasks = learned.encoder.tasks([Task("eve", pool, test)])
    (found,) = judge(learned, tasks, lambda space, tasks: [learned.inner for _ in tasks])
    ours = next(arm for arm in found.arms if arm.name == OURS)
    nats, _ = learned.adapt(shown).score(asked)
    assert sum(ours.nats) / len(ours.nats) == pytest.approx(nats, rel=1e-4)


def test_a_run_that_was_not_trained_so_keeps_none(world: World, tmp_path: Path) -> None:
    plain = small_run(world, "joint-lora", tmp_path / "run")
    adapted = plain.adapt(SHOWN)
    assert (adapted.kept, plain.unadapted.kept, plain.in_context) == (None, None, False)
    adapted.save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "in_context.json").exists()
