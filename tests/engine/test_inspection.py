"""Data that a model or its tokenizer can't take is refused or told of, by check and train alike."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st

from data.conftest import byte_tokenizer
from innerloop.config.loading import load_config
from innerloop.data.encoder import Encoder
from innerloop.data.encoding import EncodedTask, encode_all
from innerloop.data.tasks import Example, Message, Task
from innerloop.engine.inspection import check_prompts, check_tokens, shown, warn_of_more, warnings_of
from innerloop.errors import UserError
from innerloop.loading.models import LoadedModel, load
from innerloop.runs.meta_train import meta_train
from record_files import write
from small_runs import Cli, World, config_file, records, settings
from tiny import save_tiny, tiny_model, tiny_tokenizer

TOKENIZER, BYTES = tiny_tokenizer(), byte_tokenizer()
POSITIONS = 512  # of the tiny models


def encoded(*examples: Example, tokenizer: Any = TOKENIZER, longest: int = 9999) -> list[EncodedTask]:
    return encode_all([Task("t", examples)], tokenizer, max_length=longest, on_too_long="error")


def loaded(tokenizer: Any = TOKENIZER) -> LoadedModel:
    return LoadedModel(tiny_model("llama"), tokenizer, "tiny", "", "")


# faults


def test_an_id_beyond_the_embedding_is_named() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<tool>"])
    fine, beyond = Example("a", "b"), Example("a", "<tool>", where="x.jsonl:2")
    check_tokens(encoded(fine, tokenizer=tokenizer), loaded(tokenizer))
    with pytest.raises(UserError, match="'<tool>' as id 64, and the model has 64 token embeddings") as caught:
        check_tokens(encoded(fine, beyond, tokenizer=tokenizer), loaded(tokenizer))
    assert "x.jsonl:2" in caught.value.faults[0].where


def test_an_example_longer_than_the_models_positions_is_named_and_counted() -> None:
    check_tokens(encoded(Example("a" * (POSITIONS - 2), "b")), loaded())
    with pytest.raises(UserError, match=f"1 of 2 examples are longer than the model's {POSITIONS} positions"):
        check_tokens(encoded(Example("a", "b"), Example("a" * (POSITIONS - 1), "b")), loaded())


def test_both_are_said_at_once_by_check_and_train_alike(world: World, cli: Cli, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save_pretrained(base)
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for name in ("ada", "dee"):
        rows = [*records(name), {"prompt": "x" * POSITIONS, "completion": " <tool>", "other": "b"}]
        write(tasks / f"{name}.jsonl", *rows)
    own = World(base, tasks, load(str(base)))
    changes = {"tasks.max_length": 9999, "outer.tasks_per_step": 1}
    said = [cli(verb, config_file(own, tmp_path, changes=changes)) for verb in ("check", "train")]
    for each in said:
        assert each.code == 2
        assert "'<tool>' as id 64" in each.err
        assert f"longer than the model's {POSITIONS} positions" in each.err
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="as id 64"):
        meta_train(settings(own, "fomaml-lora", tmp_path / "run", changes), model=own.model)


# warnings


@checked(max_examples=60, deadline=None)
@given(answers=st.lists(st.text("aZé1 ", min_size=1).filter(str.strip), min_size=1, max_size=6, unique=True))
def test_answers_that_the_tokenizer_cannot_write_are_counted(answers: list[str]) -> None:
    """The tiny tokenizer lowers capitals, and has no é."""
    tasks = encoded(*(Example("a: ", answer) for answer in answers))
    lost = [answer for answer in answers if "Z" in answer or "é" in answer]
    said = [line for line in warnings_of(tasks, TOKENIZER) if "can't be written" in line]
    assert [line.split(" can't")[0] for line in said] == ([f"{len(lost)} of {len(answers)} answers"] if lost else [])
    assert all(repr(lost[0]) in line for line in said)


@pytest.mark.parametrize(
    ("prompt", "answer", "said"),
    [
        ("capital:", "paris", "no white space stands between"),
        ("capital", "paris", "no white space stands between"),
        ("capital:", " paris", None),
        ("capital\n", "paris", None),
        ("f(", "x)", None),
        ("say '", "x'", None),
        ("首都は", "東京", None),
    ],
)
def test_a_seam_without_white_space_is_told_of(prompt: str, answer: str, said: str | None) -> None:
    warnings = [line for line in warnings_of(encoded(Example(prompt, answer)), TOKENIZER) if "space" in line]
    assert len(warnings) == (said is not None)
    assert all(str(said) in line for line in warnings)


def test_a_space_on_the_wrong_side_of_the_seam_is_told_of() -> None:
    """ " 7" is one token of this tokenizer, and so is ": 7"."""
    assert warnings_of(encoded(Example("x", " 7"), tokenizer=BYTES), BYTES) == []
    (said,) = warnings_of(encoded(Example("x ", "7"), tokenizer=BYTES), BYTES)
    assert "other tokens together than apart in 1 of 1 examples" in said
    few = [Example("x ", "7"), *(Example(f"x{n}", " 7") for n in range(2))]
    assert warnings_of(encoded(*few, tokenizer=BYTES), BYTES) == []  # most, not any


def test_a_conversation_has_no_seam() -> None:
    assert warnings_of(encoded(Example((Message("user", "a"),), "b"), tokenizer=BYTES), BYTES) == []


def test_warnings_are_printed_by_check_and_train(world: World, cli: Cli, tmp_path: Path) -> None:
    changes = {"tasks.columns": {"completion": "prompt", "prompt": "other"}}
    for verb in ("check", "train"):
        said = cli(verb, config_file(world, tmp_path, changes=changes))
        assert said.code == 0
        assert "warning  no white space stands between prompt and answer" in said.out


# one example shown


def test_an_example_is_shown_in_its_parts() -> None:
    think = "{% if m.role == 'assistant' %}{{ '<think>' }}{% endif %}{{ m.content + eos_token }}"
    tokenizer_ = byte_tokenizer(chat_template=f"{{% for m in messages %}}{think}{{% endfor %}}")
    tasks = encoded(Example((Message("user", "2+2"),), "4", where="a.jsonl:1"), tokenizer=tokenizer_)
    found = shown(tasks, tokenizer_)
    assert found == ("of task t (a.jsonl:1)", "2+2</s>", "<think>", "4", "</s>")
    assert "template '<think>', scored" in found.lines()
    encoder = Encoder(BYTES, 99, "error")
    whole = "".join(shown(encoder.tasks([Task("t", (Example("a:", " b"),))]), BYTES)[1:])
    assert whole == "a: b</s>"


def test_check_shows_one(world: World, cli: Cli, tmp_path: Path) -> None:
    said = cli("check", config_file(world, tmp_path))
    assert "example  of task ada" in said.out
    assert "end      '<eos>', scored" in said.out


# prompts with examples in them


def in_context(*examples: Example, tokenizer: Any = TOKENIZER) -> list[EncodedTask]:
    return Encoder(tokenizer, max_length=9999, on_too_long="error", asks="in-context").tasks([Task("t", examples)])


def test_a_prompt_beyond_the_models_positions_says_how_many_examples_fit() -> None:
    rows = [Example(f"{n}" + "a" * 95, "bc") for n in range(6)]  # 100 tokens with the separator
    model = loaded().model
    assert not check_prompts(in_context(*rows), 5, model)
    assert not check_prompts(encoded(*rows), 6, model), "each stands alone"
    (fault,) = check_prompts(in_context(*rows), 6, model)
    assert (fault.where, fault.value) == ("task t", 600)
    assert f"at most {POSITIONS} tokens, which 5 of its longest examples fit" in fault.expected


def test_a_template_that_rewrites_earlier_answers_is_a_fault_before_training() -> None:
    rows = [Example((Message("user", f"{n}"),), "b") for n in range(4)]
    assert not check_prompts(in_context(*rows), 3, loaded().model)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ': ' }}{% if m.role == 'assistant' and loop.last %}{{ 'so: ' }}{% endif %}"
        "{{ m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    (fault,) = check_prompts(in_context(*rows, tokenizer=tokenizer), 3, loaded().model)
    assert "otherwise when more turns follow" in fault.problem
    assert rows[0].id in fault.where


def test_check_refuses_such_a_prompt_and_more_than_training_had_warns(world: World, cli: Cli, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for name in ("ada", "bob", "dee"):
        write(tasks / f"{name}.jsonl", *({"prompt": f"{n}" + "a" * 95, "completion": "bc"} for n in range(14)))
    changes = {"tasks.folder": str(tasks), "tasks.support": 5}
    said = cli("check", config_file(world, tmp_path, "in-context-lora", changes))
    assert said.code == 2
    assert "a prompt of 6 examples is too long for the model" in said.err
    assert cli("check", config_file(world, tmp_path, "in-context-lora", {**changes, "tasks.support": 4})).code == 0
    config = load_config(settings(world, "in-context-lora", tmp_path / "run"))
    with pytest.warns(RuntimeWarning, match="4 examples in a prompt: this run was trained with 3 at most"):
        warn_of_more(config, 4)
    warn_of_more(config, 3)
