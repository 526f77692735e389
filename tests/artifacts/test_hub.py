"""What goes to the hub is the export, in one commit; a hub that isn't there or refuses is one clear error."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from innerloop.errors import UserError
from small_runs import SUPPORT, Cli, Runs, files_of


class Hub(BaseHTTPRequestHandler):
    """The calls of an upload whose files are all small: they travel within the commit."""

    repositories: dict[str, Any]
    files: dict[str, bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self.answer({"error": "Invalid credentials"}, status=401)
        name = "/".join(self.path.split("/")[3:5])
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            self.repositories["/".join(filter(None, (asked.get("organization"), asked["name"])))] = asked
            return self.answer({"url": f"https://huggingface.co/{asked.get('organization')}/{asked['name']}"})
        if self.path.endswith("/preupload/main"):
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            return self.answer({"files": [{**file, "shouldIgnore": False, "oid": None} for file in files]})
        if self.path.endswith("/commit/main"):
            lines = [json.loads(line)["value"] for line in body.splitlines()]
            self.files |= {f"{name}/{each['path']}": base64.b64decode(each["content"]) for each in lines[1:]}
            return self.answer({"commitUrl": f"https://huggingface.co/{name}/commit/1", "commitOid": "1"})
        return self.answer({})

    def answer(self, said: Any, status: int = 200) -> None:
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing is printed."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    Hub.repositories, Hub.files = {}, {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    yield Hub
    server.shutdown()
    server.server_close()


def test_what_is_uploaded_is_the_export(hub: type[Hub], runs: Runs, tmp_path: Path) -> None:
    learned = runs("fomaml-lora")
    adapted = learned.adapt(SUPPORT)
    for name, of in (("initial", learned), ("acme", adapted)):
        said = of.push_to_hub(f"me/{name}", private=True, token="hf_right")
        assert said == f"{constants.ENDPOINT}/me/{name}"
        asked = hub.repositories[f"me/{name}"]
        assert asked.get("private", asked.get("visibility") == "private")
        of.save_pretrained(tmp_path / name)
        there = {path.removeprefix(f"me/{name}/"): data for path, data in hub.files.items() if f"me/{name}/" in path}
        here = files_of(tmp_path / name)
        assert there.keys() == here.keys() - {"innerloop_export.json"}
        assert all(there[file] == here[file] for file in there)
        assert {"README.md", "adapter_model.safetensors", "adapter_config.json"} <= there.keys()


def test_export_uploads_when_it_is_asked_to_and_only_then(
    hub: type[Hub], runs: Runs, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    run = runs("fomaml-lora").folder
    assert cli("export", run, "--check").code == 0
    assert cli("export", run, "--private").code == 2
    assert hub.repositories == {}
    said = cli("export", run, "--merged", "--push-to-hub", "me/merged", "--private", "--json")
    assert said.code == 0
    assert json.loads(said.out)["hub"] == f"{constants.ENDPOINT}/me/merged"
    assert {"me/merged/model.safetensors", "me/merged/README.md"} <= hub.files.keys()
    assert not any("adapter" in name for name in hub.files)


def test_a_token_that_may_not_write_is_said_and_not_shown(hub: type[Hub], runs: Runs) -> None:
    with pytest.raises(UserError, match="not uploaded") as caught:
        runs("fomaml-lora").push_to_hub("me/mine", token="hf_wrongwrongwrongwrongwrong")
    assert "hf auth login" in str(caught.value)
    assert "hf_wrongwrong" not in str(caught.value)
    assert hub.files == {}


def test_a_hub_that_can_not_be_reached_is_said(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UserError, match=r"not uploaded \(ConnectError") as caught:
        runs("fomaml-lora").push_to_hub("me/mine", token="hf_right")
    assert "http://127.0.0.1:1" in caught.value.faults[0].expected


def test_offline_is_offline(hub: type[Hub], runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="OfflineModeIsEnabled"):
        runs("fomaml-lora").push_to_hub("me/mine", token="hf_right")
    assert hub.files == {}


def test_what_is_no_name_is_refused_before_anything_is_written(runs: Runs) -> None:
    for name in ("no name", "a/b/c", "", "x" * 200):
        with pytest.raises(UserError, match="not the name of a repository"):
            runs("fomaml-lora").push_to_hub(name)
