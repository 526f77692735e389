"""Nothing of a model, an adapter or a config runs; nothing connects for a local model; no object is unpickled."""

import importlib.metadata
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

import innerloop
from innerloop.artifacts.export import reload_logits
from innerloop.data.encoding import encode
from innerloop.data.tasks import Example, Message
from innerloop.errors import Fault, RunError, UserError, redacted
from innerloop.loading import models, shapes
from record_files import write
from small_runs import SUPPORT, Cli, Runs, World, config_file, files_of, tokens_of
from tiny import save_tiny, tiny_tokenizer

ROOT = Path(__file__).parents[1]
SETTINGS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
PROCESSOR = "['uname', '-p']"  # how Python's platform.platform(), for the manifest, learns the processor's name
COMMIT = "'describe', '--always', '--dirty'"  # of git, for results.json: which source scored
SECRET = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567"


def environment(**more: str) -> dict[str, str]:
    """As a user has it who never heard of offline modes."""
    kept = {key: value for key, value in os.environ.items() if key not in (*SETTINGS, "DISABLE_TELEMETRY")}
    return {**kept, "PYTHONPATH": str(Path(innerloop.__file__).parents[1]), **more}


def watched(folder: Path, *commands: list[str]) -> dict[str, Any]:
    """A hub that nobody answers for: a connection that is tried is seen, and fails at once."""
    more = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(folder / "hf"), "OMP_NUM_THREADS": "1"}
    child = [sys.executable, str(ROOT / "tests" / "watched_child.py"), json.dumps(commands)]
    done = subprocess.run(child, env=environment(**more), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout.splitlines()[-1]), "err": done.stderr}


# the network, pickle


@pytest.mark.parametrize("method", ["fomaml-lora", "fomaml"])
def test_a_local_model_needs_no_network_no_pickle_and_no_other_program(
    world: World, tmp_path: Path, method: str
) -> None:
    config, new = config_file(world, tmp_path, method), write(tmp_path / "eve.jsonl", *SUPPORT)
    run, adapted = str(tmp_path / "run"), str(tmp_path / "adapted")
    said = watched(
        tmp_path,
        ["plan", str(config)],
        ["train", str(config)],
        ["adapt", run, str(new), "--prompt", "eve 0:", "--output", adapted],
        ["eval", run, "--k", "1", "--draws", "1", "--max-new-tokens", "12"],
        ["export", run, "--check"],
    )
    assert said["codes"] == [0] * 5, said["err"]
    assert said["network"] == said["pickle"] == []
    assert [line for line in said["processes"] if PROCESSOR not in line and COMMIT not in line] == []


def test_the_hook_sees_what_there_is_to_see(world: World, tmp_path: Path) -> None:
    config = config_file(world, tmp_path, changes={"model.name": "org/nowhere"})
    said = watched(
        tmp_path,
        ["check", str(config)],
        ["python", "import pickle, pathlib; pickle.loads(pickle.dumps(pathlib.Path()))"],
        ["python", "import subprocess; subprocess.run(['true'])"],
    )
    assert said["codes"] == [2]
    assert "no config.json of this model on this machine, nor from the hub" in said["err"]
    assert any("127.0.0.1" in line for line in said["network"])
    assert any("Path" in line for line in said["pickle"])
    assert any("true" in line for line in said["processes"])


@pytest.mark.parametrize(
    ("given", "off"), [({}, True), ({"HF_HUB_DISABLE_TELEMETRY": "0", "DO_NOT_TRACK": "0"}, False)]
)
def test_telemetry_is_off_unless_the_user_wants_it(given: dict[str, str], off: bool) -> None:
    script = "import innerloop; from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    said = subprocess.run([sys.executable, "-c", script], env=environment(**given), capture_output=True, text=True)
    assert said.stdout.strip() == str(off), said.stderr


# code


class Trap:
    """Writes `marker` when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.marker, "ran")


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that planted code writes. Whoever is asked whether to run code says yes."""
    marker = tmp_path / "marker"
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    yield marker
    assert not marker.exists(), "planted code ran"


@pytest.fixture
def base(tmp_path: Path, planted: Path) -> Path:
    """A model with a module in its folder that leaves a mark where it is imported."""
    folder = save_tiny(tmp_path / "base", layers=2)
    source = f"import pathlib\npathlib.Path({str(planted)!r}).write_text('ran')\n"
    source += "from transformers import LlamaConfig as Config, LlamaForCausalLM as Model\n"
    source += "from transformers import PreTrainedTokenizerFast as Words\n"
    (folder / "planted.py").write_text(source)
    return folder


AUTO = {"AutoConfig": "planted.Config", "AutoModelForCausalLM": "planted.Model"}


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_model_that_needs_its_own_code_is_refused(base: Path) -> None:
    edit(base / "config.json", auto_map=AUTO, model_type="planted")
    for read in (models.load, shapes.model_shape):
        with pytest.raises(UserError, match="transformers can't read this"):
            read(str(base))


def test_a_known_model_is_read_without_the_code_beside_it(base: Path) -> None:
    edit(base / "config.json", auto_map=AUTO)
    edit(base / "tokenizer_config.json", auto_map={"AutoTokenizer": ["planted.Words", "planted.Words"]})
    assert type(models.load(str(base)).model).__module__.startswith("transformers.")
    assert shapes.model_shape(str(base)).model_type == "llama"


def test_the_planted_code_would_run_where_it_is_let(base: Path, planted: Path, tmp_path: Path) -> None:
    edit(base / "config.json", auto_map=AUTO, model_type="planted")
    script = "import sys, transformers; transformers.AutoConfig.from_pretrained(sys.argv[1], trust_remote_code=True)"
    child = [sys.executable, "-c", script, str(base)]
    subprocess.run(child, env=environment(HF_HOME=str(tmp_path / "hf")), check=True, capture_output=True)
    assert planted.read_text() == "ran"
    planted.unlink()
    pickle.loads(pickle.dumps(Trap(planted)))
    assert planted.read_text() == "ran"
    planted.unlink()


@pytest.mark.parametrize(
    "key",
    [
        {"_attn_implementation": "org/code"},
        {"attn_implementation": {"": "org/code@main"}},
        {"experts_implementation": "a/b"},
    ],
)
def test_a_config_that_names_code_of_the_hub_is_refused(base: Path, key: dict[str, Any]) -> None:
    for changes in (key, {"text_config": key}):
        shutil.copy(base / "config.json", base / "kept.json")
        edit(base / "config.json", **changes)
        for read in (models.load, models.load_tokenizer, shapes.model_shape):
            with pytest.raises(UserError, match="names code of the hub"):
                read(str(base))
        shutil.move(base / "kept.json", base / "config.json")
    edit(base / "config.json", attn_implementation="eager")
    models.load(str(base))


@pytest.mark.parametrize("shard", ["../elsewhere.safetensors", "/etc/passwd", "model.bin", ""])
def test_an_index_of_weights_names_files_beside_it(base: Path, shard: str) -> None:
    (base / "model.safetensors").rename(base.parent / "elsewhere.safetensors")
    index = {"weight_map": {"model.norm.weight": shard}, "metadata": {}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="not a weights index"):
        models.load(str(base))


def test_pickled_weights_are_not_opened(base: Path, planted: Path, runs: Runs, tmp_path: Path) -> None:
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(planted)))
    with pytest.raises(UserError, match="no safetensors weights"):
        models.load(str(base))
    learned = runs("fomaml-lora")
    adapter = Path(shutil.copytree(learned.exported, tmp_path / "adapter"))
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Trap(planted)))
    with pytest.raises(UserError, match="a file that can hold code"):
        reload_logits(adapter, tokens_of(learned))


@pytest.mark.parametrize(
    "template",
    [
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ (''|attr('__class__')).__mro__ }}",
        "{{ messages.append(messages[0]) }}",
        "{{ messages[0].update(role='x') }}",
        "{{ raise_exception.__globals__.os }}",
    ],
)
def test_a_chat_template_stays_in_its_sandbox(template: str) -> None:
    example, tokenizer = Example((Message("user", "2 + 2"),), "4"), tiny_tokenizer()
    assert encode(example, tokenizer).tokens
    tokenizer.chat_template = template + tokenizer.chat_template
    with pytest.raises(UserError, match="the chat template refuses the conversation"):
        encode(example, tokenizer)


# secrets

LETTERS = "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        (SECRET, "hf_A***"),
        ("https://me:pa55word@host/x", "https://me:***@host/x"),
        (f"https://me:{SECRET}@host/x", "https://me:***@host/x"),
        (f"https://{SECRET}@host/x", "https://hf_A***@host/x"),
    ],
)
def test_hub_tokens_and_the_passwords_of_urls_are_cut(secret: str, shown: str) -> None:
    for text in ("{}", "no such model: {}.", "['a', '{}']", "run.yaml: {}: unknown key", "hub.token={}, then {}"):
        assert redacted(text.format(secret, secret)) == text.format(shown, shown)


@pytest.mark.parametrize(
    "text",
    [
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "hf_hub_download(local_files_only=True)",
        "shelf_AbCdEfGhIjKlMnOpQrStUvWxYz0123",
        "eos_token: '</s>', pad_token='<|reserved_special_token_0|>'",
        "https://huggingface.co/docs/hub/security-tokens#what: see me@host there",
    ],
)
def test_prose_digests_and_names_stay(text: str) -> None:
    assert redacted(text) == text


@given(before=st.text(max_size=20), after=st.text(max_size=20), secret=st.text(LETTERS, min_size=30, max_size=60))
def test_no_text_around_a_token_keeps_it_and_twice_is_once(before: str, after: str, secret: str) -> None:
    before = before + "/" if before[-1:].isalnum() else before  # as a part of a longer word it isn't a token
    once = redacted(f"{before}hf_{secret}{after}")
    assert secret not in once
    assert redacted(once) == once


def test_every_part_of_a_message_is_redacted() -> None:
    long = "x " * 50 + SECRET  # is cut where it is shown, and so would the token be
    said = str(UserError(Fault(f"a {SECRET}", f"b {SECRET}", {"c": long}, f"d {SECRET}"), f"e {SECRET}"))
    assert SECRET[4:8] not in said
    assert said.count("hf_A***") == 5
    assert SECRET[4:8] not in str(RunError(f"lost {SECRET}"))


def test_a_secret_in_a_config_reaches_neither_terminal_nor_disk(cli: Cli, world: World, tmp_path: Path) -> None:
    config = config_file(world, tmp_path)
    config.write_text(config.read_text() + f"hub:\n  token: {SECRET}\n{SECRET}: 1\n")
    for argv in (["train", config], ["plan", config], ["train", config, "--set", f"hub.token={SECRET}"]):
        said = cli(*argv)
        assert said.code == 2
        assert "hub" in said.err
        assert "hf_A***" in said.err
        assert SECRET[5:] not in said.out + said.err
    assert list(files_of(tmp_path)) == ["run.yaml"]


# dependencies

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIRED = {(one := Requirement(text)).name: one for text in PROJECT["dependencies"]}
OPTIONAL = [Requirement(text) for texts in PROJECT["optional-dependencies"].values() for text in texts]


@pytest.mark.parametrize(
    ("package", "floor", "below"),
    [("torch", "2.10", "2.9.1"), ("transformers", "5.3", "5.2.9")],  # GHSA-63cw-57p8-fm3p, CVE-2026-4372
)
def test_no_version_with_a_known_way_in_is_allowed(package: str, floor: str, below: str) -> None:
    assert REQUIRED[package].specifier.contains(floor)
    assert not REQUIRED[package].specifier.contains(below)


def test_what_is_installed_and_what_ci_installs_is_in_all_ranges() -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert pinned, "no constraint was read"
    for one in (*REQUIRED.values(), *OPTIONAL):
        try:
            installed = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            assert one in OPTIONAL, f"{one.name} is not installed"
            continue
        assert one.specifier.contains(installed, prereleases=True), f"{one}, installed: {installed}"
        assert one.name not in pinned or one.specifier.contains(pinned[one.name].strip()), f"{one}, {pinned[one.name]}"


def test_every_dependency_is_imported() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    named = {"pyyaml": "yaml", "huggingface-hub": "huggingface_hub"}
    for name in REQUIRED:
        assert re.search(rf"^\s*(?:import|from) {named.get(name, name)}\b", source, re.MULTILINE), name
