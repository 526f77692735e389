"""What loads is what was stored, frozen and of a kind innerloop can train; anything else is a UserError."""

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from innerloop.errors import UserError
from innerloop.loading import models
from innerloop.loading.architecture import packs
from innerloop.loading.shapes import model_shape
from innerloop.loading.weights import fingerprint
from tiny import save_tiny, tiny_model, tiny_tokenizer

TOKENS = torch.randint(64, (2, 7), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "tiny"))


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_folder_loads_frozen_and_in_eval_mode(stored: Path) -> None:
    loaded, live = models.load(str(stored)), tiny_model("llama")
    assert (loaded.name, loaded.source) == (str(stored), str(stored.resolve()))
    assert not any(module.training for module in loaded.model.modules())
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert torch.equal(loaded.model(input_ids=TOKENS).logits, live(input_ids=TOKENS).logits)
    text = "gcd of 12 and 18?"
    assert loaded.tokenizer(text).input_ids == tiny_tokenizer()(text).input_ids
    assert loaded.tokenizer.decode(models.load_tokenizer(str(stored))(text).input_ids) == text


@pytest.mark.parametrize("dtype", models.DTYPES)
def test_the_dtype_asked_for_is_loaded_and_the_fingerprint_stays(stored: Path, dtype: str) -> None:
    loaded = models.load(str(stored), dtype=dtype)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {getattr(torch, dtype)}
    assert loaded.fingerprint == fingerprint(stored)


def test_the_fingerprint_does_not_depend_on_shards(stored: Path, tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert fingerprint(tmp_path) == fingerprint(stored)
    models.load_model(str(tmp_path))
    next(tmp_path.glob("model-*.safetensors")).unlink()
    with pytest.raises(UserError, match="no safetensors weights"):
        models.load_model(str(tmp_path))


def _drop(name: str):
    return lambda folder: (folder / name).unlink()


def _config(**changes: Any):
    return lambda folder: edit(folder / "config.json", **changes)


def _rename_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["zork"] = tensors.pop("model.norm.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _cut(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-10])


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_drop("config.json"), "no config.json"),
        (_drop("model.safetensors"), "no safetensors weights"),
        (_drop("tokenizer.json"), "tokenizer"),
        (_config(model_type="zork"), "zork"),
        (
            _config(model_type="zork", auto_map={"AutoConfig": "a.B", "AutoModelForCausalLM": "a.C"}),
            "never runs",
        ),
        (_config(hidden_size=-3), "hidden size"),
        (_config(num_hidden_layers=4), r"lack 9 .*model\.layers\.3"),
        (_config(intermediate_size=50), r"mlp.*shape[\s\S]*48[\s\S]*50"),
        (_rename_tensor, r"lack 1 .*model\.norm\.weight"),
        (_cut, "damaged|can't read"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "adapter"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_reason(folder: Path, damage: Any, named: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=named):
        models.load(str(folder))


@pytest.mark.parametrize(
    "name", ["", "./nowhere", "a--b", "/no/such/folder", "a/b/c", "no such", "gone.gguf", "~/gone.gguf"]
)
def test_a_name_that_leads_nowhere_is_refused(name: str) -> None:
    for read in (models.load, models.load_tokenizer):
        with pytest.raises(UserError, match=r"model\.name: no such"):
            read(name)


def test_every_wrong_option_is_named_at_once(stored: Path) -> None:
    with pytest.raises(UserError, match=r"'float8'[\s\S]*'zork'") as caught:
        models.load(str(stored), dtype="float8", device="zork")
    assert len(caught.value.faults) == 2


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=30) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_a_config_of_any_content_is_an_error_and_no_traceback(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, "utf-8", "surrogatepass")
    with pytest.raises(UserError):
        models.load(str(folder))


class _Hub(http.server.SimpleHTTPRequestHandler):
    """What a download needs of the hub's protocol, over one folder: org/tiny. org/cut is cut off."""

    commit = "a" * 40
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        folder, path = Path(self.directory), self.path.split("?")[0]
        self.asked.append(f"{self.command} {path}")
        if path.startswith("/api/models/org/cut"):
            return
        if path.startswith("/api/models/org/tiny/tree/"):
            files = [{"type": "file", "path": file.name, "size": 1, "oid": ""} for file in folder.iterdir()]
            self._answer(json.dumps(files).encode())
        elif path.startswith("/api/models/org/tiny/"):
            self._answer(json.dumps({"id": "org/tiny", "sha": self.commit}).encode())
        elif path.startswith("/org/tiny/resolve/"):
            self._answer((folder / path.split("/")[-1]).read_bytes())
        else:
            self._answer(b"", 404)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("X-Error-Code", "RepoNotFound" if status == 404 else "")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def two_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with two states of org/tiny: main, and the tag v1."""
    from huggingface_hub import constants

    here = tmp_path / "hub" / "models--org--tiny"
    for number, name in enumerate(("main", "v1")):
        commit = f"{number}" * 40
        save_tiny(here / "snapshots" / commit, seed=number)
        (here / "refs").mkdir(exist_ok=True)
        (here / "refs" / name).write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return here / "snapshots"


def test_a_revision_of_a_hub_id_is_read_and_no_other(two_states: Path) -> None:
    newest, tagged = models.load("org/tiny"), models.load("org/tiny", revision="v1")
    assert newest.fingerprint == fingerprint(two_states / ("0" * 40))
    assert tagged.fingerprint == fingerprint(two_states / ("1" * 40))
    assert (newest.revision, tagged.revision, tagged.hub_id) == (None, "v1", "org/tiny")
    assert models.load("org/tiny", revision="1" * 40).fingerprint == tagged.fingerprint
    assert models.load_tokenizer("org/tiny", revision="v1").vocab_size == tagged.tokenizer.vocab_size
    assert model_shape("org/tiny", revision="v1").hidden_size == 32
    with pytest.raises(UserError, match="not downloaded"):
        models.load("org/tiny", revision="v2")


def test_what_is_on_this_machine_has_no_revision(folder: Path) -> None:
    for name in (str(folder), "smollm2-135m-q4_1"):
        for read in (models.load, models.load_tokenizer):
            with pytest.raises(UserError, match=r"model\.revision[\s\S]*v1"):
                read(name, revision="v1")


def test_attention_is_computed_as_asked(folder: Path) -> None:
    plain, eager = models.load(str(folder)), models.load(str(folder), attn_implementation="eager")
    assert (packs(plain.model), packs(eager.model)) == (True, False)
    assert eager.model.config._attn_implementation == "eager"
    assert eager.fingerprint == plain.fingerprint
    with torch.no_grad():
        ours, theirs = (each.model(input_ids=TOKENS).logits for each in (plain, eager))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_hub_id_is_downloaded_once_and_not_asked_for_again(folder: Path, tmp_path: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    script = (
        "from innerloop.loading import models\n"
        "for name in ('org/tiny', 'org/tiny', 'org/gone', 'org/cut'):\n"
        "    try: models.load_tokenizer(name); print(models.load(name).fingerprint)\n"
        "    except models.UserError as error: print(str(error).splitlines()[0])"
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "0",
        "PYTHONPATH": str(Path(models.__file__).parents[1]),
    }
    try:
        child = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    finally:
        server.shutdown()
        server.server_close()
    first, second, gone, cut = child.stdout.splitlines()
    assert first == second == fingerprint(folder)
    assert "no such model on the hub" in gone
    assert "not downloaded" in cut
    revisions = [line for line in _Hub.asked if line.startswith("GET /api/models/org/tiny/revision")]
    assert len(revisions) == 2  # for the tokenizer, for the weights, and never again
    assert not any("pytorch_model.bin" in line for line in _Hub.asked)
