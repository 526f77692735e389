"""Messages for people: every fault says what, where, the value and what would be right."""

from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innerloop.errors import FAULTS_SHOWN, Fault, Faults, RunError, UserError, did_you_mean, redacted


def test_a_fault_says_where_the_value_and_what_would_be_right() -> None:
    fault = Fault("not a count", "run.yaml: outer.steps (line 3)", -1, "whole number above 0")
    assert str(fault) == (
        "run.yaml: outer.steps (line 3): not a count\n    value:    -1\n    expected: whole number above 0"
    )


@pytest.mark.parametrize("value", [None, "", 0, False])
def test_an_empty_value_is_shown_and_an_absent_one_is_not(value: object) -> None:
    assert f"value:    {value!r}" in str(Fault("wrong", value=value))
    assert str(Fault("wrong")) == "wrong"
    assert str(Fault("wrong", "here")) == "here: wrong"


@given(st.text(max_size=400))
def test_a_long_value_is_cut(value: str) -> None:
    shown = str(Fault("p", value=value)).removeprefix("p\n    value:    ")
    assert len(shown) <= 120
    assert "\n" not in shown
    assert shown == repr(value) if len(repr(value)) <= 120 else shown == repr(value)[:119] + "…"


def test_a_user_error_holds_all_faults_and_text_is_a_fault() -> None:
    error = UserError(Fault("one", "a"), "two")
    assert error.faults == (Fault("one", "a"), Fault("two"))
    assert str(error) == "a: one\ntwo"


def test_faults_are_raised_together_and_only_if_there_are_any() -> None:
    faults = Faults()
    faults.raise_if_any()
    faults.add("one", "a", 1, "2")
    faults.add("two")
    with pytest.raises(UserError) as caught:
        faults.raise_if_any()
    assert caught.value.faults == (Fault("one", "a", 1, "2"), Fault("two"))


def test_what_only_a_place_a_value_and_numbers_tell_apart_is_said_once_with_its_places() -> None:
    """One a task, say: where something else differs, both are said."""
    small = [Fault("too small for 9", f"task {name}", size, "at least 9") for size, name in enumerate("abcdefgh")]
    other = Fault("too large", "task a", 1, "at least 9")
    error = UserError(*small[:3], other, *small[3:], small[0])
    assert error.faults == (*small[:3], other, *small[3:])
    assert str(UserError(*small[:3])).count("value:") == 3, "of a few each is said whole"
    assert str(error) == (
        "task a: too small for 9\n    value:    0\n    expected: at least 9\n"
        "    also at:  task b; task c; task d; task e; 3 more (8 in all)\n"
        "task a: too large\n    value:    1\n    expected: at least 9"
    )


def test_many_faults_that_differ_are_cut_and_counted() -> None:
    error = UserError(*(Fault(f"wrong {'x' * number}", "here") for number in range(25)))
    assert len(error.faults) == 25
    assert str(error).count("here: wrong") == FAULTS_SHOWN
    assert str(error).endswith("\n... and 5 more")
    assert "more" not in str(UserError(*error.faults[:FAULTS_SHOWN]))


class Turn(NamedTuple):
    role: str
    content: str


def test_a_value_is_shown_as_a_user_wrote_it() -> None:
    shown = str(Fault("wrong", value=(Turn("user", "hi"), Path("a"), {"k": (1, 2)})))
    assert shown == "wrong\n    value:    [{'role': 'user', 'content': 'hi'}, 'a', {'k': [1, 2]}]"


def test_exit_codes() -> None:
    assert (UserError("x").exit_code, RunError("x").exit_code) == (2, 1)


def test_the_nearest_word_is_offered_and_all_where_none_is_near() -> None:
    assert did_you_mean("stpes", ["steps", "lr"]) == 'did you mean "steps"?'
    assert did_you_mean("zork", ["steps", "lr"]) == "one of: lr, steps"


# secrets

LETTERS = "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"


@pytest.mark.parametrize(
    ("secret", "start"),
    [
        ("hf_" + LETTERS[:34], "hf_A"),
        ("sk-" + LETTERS, "sk-A"),
        ("sk-ant-api03-" + LETTERS + "-" + LETTERS, "sk-a"),
        ("sk-proj-" + LETTERS, "sk-p"),
        ("ghp_" + LETTERS, "ghp_"),
        ("github_pat_11" + LETTERS + "_" + LETTERS, "gith"),
        ("AKIAIOSFODNN7EXAMPLE", "AKIA"),
        ("xoxb-123456789012-" + LETTERS, "xoxb"),
    ],
)
def test_a_key_known_by_its_looks_is_cut_to_its_first_characters(secret: str, start: str) -> None:
    for text in ("{}", "no such model: {}.", "https://host/{}/x", "['a', '{}']", "run.yaml: {}: unknown key"):
        assert redacted(text.format(secret)) == text.format(f"{start}***")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password = hunter2", "password = ***"),
        ("password: hunter2, then", "password: ***, then"),
        ("{'hub': {'secret': 'swordfish'}}", "{'hub': {'secret': '***'}}"),
        ('{"api_key": "abcdefghijklmnopqrst"}', '{"api_key": "abcd***"}'),
        ("WANDB_API_KEY=0123456789abcdef0123456789abcdef01234567", "WANDB_API_KEY=0123***"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEX", "aws_secret_access_key = wJal***"),
        ("token: a1b2c3d4e5", "token: ***"),
        ("--set hub.token=abcdefgh: unknown key", "--set hub.token=***: unknown key"),
        ("https://me:pa55word@host/x", "https://me:***@host/x"),
        ("https://host/x?key=AIzaSyA1234567890abcdef&b=1", "https://host/x?key=AIza***"),
    ],
)
def test_what_is_said_to_be_secret_is_cut(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "commit 8edd040a1b2c3d4e5f60718293a4b5c6d7e8f901",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "sk-SK-slovak-bert-7b-instruct-v2-large",
        "task-hidden-rules-0123456789abcdef",
        "hf_hub_download(local_files_only=True)",
        "asia2024conferencedataset",
        "eos_token: '</s>', pad_token='<|reserved_special_token_0|>'",
        "no such token: zork; names no end token: give one",
        "tokens: 128, max_new_tokens=64, tokens=100000",
        "a key has to be text; key: value; the secret: nothing was trained",
        "password: what the server asks for",
        "https://huggingface.co/docs/hub/security-tokens#what: see there",
        "model.layers.29.mlp.up_proj.lora_B",
    ],
)
def test_prose_digests_and_names_stay(text: str) -> None:
    assert redacted(text) == text


@given(st.lists(st.from_regex(r"[A-Za-z][a-z]{0,11}[.,:;]?|[0-9]{1,9}|[0-9a-f]{40}|[0-9a-f]{64}", fullmatch=True)))
def test_ordinary_words_numbers_and_digests_stay(words: list[str]) -> None:
    named = ("password", "passwd", "passphrase", "secret", "token")  # in front of a digest they would be what they say
    text = " ".join(word for word in words if not word.lower().rstrip(".,:;").endswith(named))
    assert redacted(text) == text


@given(before=st.text(max_size=20), after=st.text(max_size=20), secret=st.text(LETTERS, min_size=30, max_size=60))
def test_no_text_around_a_key_keeps_it_and_twice_is_once(before: str, after: str, secret: str) -> None:
    before = before + "/" if before[-1:].isalnum() else before  # as a part of a longer word it isn't a key
    once = redacted(f"{before}hf_{secret}{after}")
    assert secret not in once
    assert redacted(once) == once


@pytest.mark.parametrize("where", ["run.yaml: hub.token (line 3)", "--set hub.api_key=correcthorse", "hub.password"])
def test_the_value_of_a_secret_key_is_not_shown(where: str) -> None:
    shown = str(Fault("unknown key", where, "correcthorse"))
    assert "correcthorse" not in shown
    assert shown.endswith("unknown key\n    value:    ***")
    assert "correcthorse" in str(Fault("unknown key", "run.yaml: hub.tokens", "correcthorse"))


def test_every_part_of_a_message_is_redacted() -> None:
    secret = "hf_" + LETTERS[:34]
    said = str(UserError(Fault(f"a {secret}", f"b {secret}", {"c": "x " * 50 + secret}, f"d {secret}"), f"e {secret}"))
    assert LETTERS[:8] not in said
    assert said.count("hf_A***") == 5
    assert LETTERS[:8] not in str(RunError(f"lost {secret}"))
