"""Shapes: the right one for each kind of name, without weights; what could not be trained is refused by name."""

import http.server
import json
import os
import shutil
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from innerloop.errors import UserError
from innerloop.loading.gguf_files import PACKAGED
from innerloop.loading.models import load_tokenizer
from innerloop.loading.shapes import has_tokenizer, known_models, model_shape, skeleton
from loading.test_gguf_files import write_gguf
from tiny import FAMILIES, save_tiny, tiny_config, tiny_model

PUBLISHED = {  # the safetensors totals of the models' pages on the hub, tied heads counted once
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1_100_048_384,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M-Instruct": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "HuggingFaceTB/SmolLM3-3B": 3_075_098_624,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-3-270m": 268_098_176,
    "google/gemma-3-1b-it": 999_885_952,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
    "microsoft/phi-2": 2_779_683_840,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
}


@pytest.fixture(autouse=True)
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub refuses at once, and its cache is empty."""
    hub_at(monkeypatch, port=9)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def hub_at(monkeypatch: pytest.MonkeyPatch, *, port: int) -> None:
    place = f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", place)


def fault_of(name: str) -> str:
    with pytest.raises(UserError) as caught:
        model_shape(name)
    return str(caught.value)


def parameters(name: str) -> int:
    return sum(parameter.numel() for parameter in skeleton(model_shape(name)).parameters())


# known models


def test_every_known_model_has_the_published_number_of_parameters() -> None:
    assert {name: parameters(name) for name in PUBLISHED} == PUBLISHED
    counted = [json.dumps(known_models()[name]) for name in PUBLISHED]
    assert {json.dumps(config) for config in known_models().values()} == set(counted)
    assert len(set(counted)) == len(counted)


def test_another_size_or_tie_would_not_pass() -> None:
    """Each field that decides a size changes the count, so a wrong one can't hide."""
    from transformers import AutoConfig

    fields = known_models()["meta-llama/Llama-3.2-1B"]
    changes: list[dict[str, Any]] = [{name: fields[name] // 2} for name in fields if "size" in name or "layers" in name]
    changes += [{"num_key_value_heads": 4}, {"num_attention_heads": 16}, {"head_dim": 128}]
    for change in [*changes, {"tie_word_embeddings": False}]:
        shape = AutoConfig.for_model(**{**fields, **change})
        counted = sum(parameter.numel() for parameter in skeleton(shape).parameters())
        assert counted != PUBLISHED["meta-llama/Llama-3.2-1B"], change


def test_packaged_models_are_known() -> None:
    assert set(PACKAGED) <= set(known_models())


# every kind of name


def test_a_folder_needs_nothing_but_its_config(tmp_path: Path) -> None:
    tiny_config("qwen3").save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    for name in (str(tmp_path), str(tmp_path / "config.json")):
        assert (model_shape(name).model_type, model_shape(name).hidden_size) == ("qwen3", 32)


def test_a_folder_goes_before_a_known_model_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_config("llama").save_pretrained("meta-llama/Llama-3.2-1B")
    assert model_shape("meta-llama/Llama-3.2-1B").hidden_size == 32


def test_a_gguf_file_describes_itself(tmp_path: Path) -> None:
    model = tiny_model("llama", layers=2)
    shape = model_shape(str(write_gguf(tmp_path / "tiny.gguf", model)))
    assert (shape.num_hidden_layers, shape.hidden_size, shape.vocab_size) == (2, 32, 64)


def test_the_hub_is_asked_for_the_config_alone_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    config = tiny_config("gemma2").to_json_string().encode()

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if "org/tiny/" in self.path else 404)
            self.end_headers()
            self.wfile.write(config)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    hub_at(monkeypatch, port=server.server_address[1])
    try:
        assert model_shape("org/tiny").model_type == "gemma2"
        assert "nor from the hub (HfHubHTTPError)" in fault_of("org/none")
        assert "`hf auth login` for a gated one" in fault_of("org/none")
    finally:
        server.shutdown()
        server.server_close()
    assert asked[0] == "/org/tiny/resolve/main/config.json"
    assert all(path.endswith("config.json") for path in asked)
    assert not (tmp_path / "hub").exists()


def test_the_hubs_cache_is_read_without_a_network(tmp_path: Path) -> None:
    cache_model(tmp_path / "hub", "org/tiny", tiny_config("phi").to_json_string())
    assert model_shape("org/tiny").model_type == "phi"
    assert not has_tokenizer("org/tiny")


def cache_model(cache: Path, name: str, config: str) -> Path:
    """A model's folder in the hub's cache, with its config alone."""
    home, commit = cache / f"models--{name.replace('/', '--')}", "a" * 40
    folder = home / "snapshots" / commit
    folder.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    (folder / "config.json").write_text(config)
    return folder


# no shape


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("meta-llama/Llama-3.2-1", 'did you mean "meta-llama/Llama-3.2-1B"?'),
        ("nobody/nothing", "nor from the hub (ConnectError)"),
        ("no such folder", "no such folder or file"),
        ("", "no such folder or file"),
        ("/no/such/config.json", "no config.json here"),
        ("missing.gguf", "the path of a .gguf file"),
    ],
)
def test_a_name_without_a_config_says_what_to_do(name: str, said: str) -> None:
    assert said in fault_of(name)
    assert fault_of(name).startswith("model.name: ")


def test_a_folder_without_a_config_is_named(tmp_path: Path) -> None:
    assert "no config.json here" in fault_of(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "expected: the adapter's base model" in fault_of(str(tmp_path))


@given(text=st.text() | st.dictionaries(st.text(), st.integers() | st.text() | st.none()).map(json.dumps))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_config_of_any_content_is_an_error_and_no_traceback(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, "utf-8", errors="surrogatepass")
    assert "transformers can't read this config" in fault_of(str(tmp_path))


@given(name=st.text(max_size=40).filter(lambda name: not os.path.exists(name) and ".gguf" not in name))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_name_of_any_text_is_an_error_and_no_traceback(name: str) -> None:
    assert "a folder with the model's config.json" in fault_of(name)


# skeletons


@pytest.mark.parametrize("family", FAMILIES)
def test_a_skeleton_has_the_tensors_of_the_model(family: str) -> None:
    model = tiny_model(family)
    bare = skeleton(model.config)
    assert {name: tuple(p.shape) for name, p in bare.named_parameters()} == {
        name: tuple(p.shape) for name, p in model.named_parameters()
    }
    assert all(parameter.is_meta for parameter in bare.parameters())


def test_a_family_that_could_not_be_trained_is_refused_by_name() -> None:
    from transformers import GPT2Config, T5Config

    with pytest.raises(UserError, match=r"'gpt2'[\s\S]*layers[\s\S]*'gpt2'[\s\S]*Conv1D") as caught:
        skeleton(GPT2Config(n_layer=1))
    assert len(caught.value.faults) == 2
    with pytest.raises(UserError, match=r"'t5': transformers can't build a causal language model"):
        skeleton(T5Config(num_layers=1))


# tokenizers


def test_a_tokenizer_is_found_where_loading_finds_it(tmp_path: Path) -> None:
    whole = save_tiny(tmp_path / "whole")
    assert has_tokenizer(str(whole))
    load_tokenizer(str(whole))
    bare = tmp_path / "bare"
    tiny_config("llama").save_pretrained(bare)
    assert not has_tokenizer(str(bare))
    assert not has_tokenizer("meta-llama/Llama-3.2-1B")
    assert not has_tokenizer("no such folder")
    cached = cache_model(tmp_path / "hub", "org/tiny", (whole / "config.json").read_text())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(whole / name, cached)
    assert has_tokenizer("org/tiny")
    assert load_tokenizer("org/tiny").vocab_size == load_tokenizer(str(whole)).vocab_size
