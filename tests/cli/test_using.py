"""adapt and export: what they do with a finished run, and how a damaged one ends."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import same
from innerloop.data.tasks import Example
from innerloop.runs.reloading import load_run
from record_files import write
from small_runs import SUPPORT, Cli, Runs, World, config_file, files_of, records, tensors_of

TEN, FORTY = records("eve")[:6], records("eve")[6:]


@pytest.fixture
def trained(runs: Runs) -> Path:
    """The folder of a finished run."""
    return runs("fomaml-lora").folder


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("new") / "eve.jsonl", *SUPPORT)


# adapt


def test_adapt_answers_and_writes_an_adapter(cli: Cli, trained: Path, examples: Path, tmp_path: Path) -> None:
    before = files_of(trained)
    output = tmp_path / "adapted"
    argv = ["adapt", trained, examples, "--prompt", "eve 0:", "--prompt", "x", "--output", output]
    said = cli(*argv)
    assert said.code == 0
    predicted, first, second, *answers, wrote = said.out.split("\n\n")[0].splitlines()
    assert predicted.startswith("predicted ")
    assert first.startswith("adapted in 2 steps of sgd, lr 0.3: ")
    assert second.startswith("support loss ")
    assert [line.partition(" -> ")[0] for line in answers] == ["'eve 0:'", "'x'"]
    assert wrote == f"wrote {output}"
    assert "each of 3 examples after the others" in said.out
    assert said.out.splitlines()[-1].startswith("took ")
    assert not same(tensors_of(output), tensors_of(trained / "adapter"))
    as_json = json.loads(cli(*argv, "--json").out)
    assert list(as_json["answers"]) == ["eve 0:", "x"]
    assert [f"{asked!r} -> {answer!r}" for asked, answer in as_json["answers"].items()] == answers
    assert len(as_json["support_loss"]) == as_json["steps"] + 1 == 3
    assert as_json["support_loss"] == sorted(as_json["support_loss"], reverse=True)
    assert as_json["output"] == str(output)
    assert as_json["leave_one_out"]["folds"] == 3
    assert as_json["predicted"].keys() == as_json["took"].keys() == {"seconds", "memory_bytes"}
    assert files_of(trained) == before


def test_adapt_judges_on_test_examples_and_never_speaks_of_a_method(cli: Cli, trained: Path, tmp_path: Path) -> None:
    ten, forty = (write(tmp_path / name, *rows) for name, rows in (("ten.jsonl", TEN), ("forty.jsonl", FORTY)))
    said = cli("adapt", trained, ten, "--test", forty)
    assert said.code == 0
    for name in ("base", "in context", "fresh LoRA", "this run"):
        assert f"\n{name}" in said.out
    assert "they say nothing of a method" in said.out.replace("\n", " ")
    assert "leave-one-out" not in said.out
    plain = cli("adapt", trained, ten, "--no-judge", "--steps", "5", "--lr", "0.1")
    assert "adapted in 5 steps of sgd, lr 0.1" in plain.out
    assert "fresh LoRA" not in plain.out
    for refused in (ten, tmp_path / "gone.jsonl"):
        assert cli("adapt", trained, ten, "--test", refused, "--output", tmp_path / "adapted").code == 2
    assert not (tmp_path / "adapted").exists()


def test_adapt_takes_a_folder_whole_or_not_at_all(cli: Cli, trained: Path, tmp_path: Path) -> None:
    new, output = tmp_path / "new", tmp_path / "adapters"
    new.mkdir()
    for name in ("eve", "fay"):
        write(new / f"{name}.jsonl", *records(name)[:4])
    bad = write(new / "bad.jsonl", {"prompt": "p"})
    said = cli("adapt", trained, new, "--output", output)
    assert (said.code, output.exists(), "bad.jsonl" in said.err) == (2, False, True)
    bad.unlink()
    said = cli("adapt", trained, new, "--output", output, "--steps", "auto", "--json")
    facts = json.loads(said.out)
    assert facts["tasks"].keys() == {"eve", "fay"}
    assert sorted(path.name for path in output.iterdir()) == ["eve", "fay"]
    assert not same(tensors_of(output / "eve"), tensors_of(output / "fay"))
    assert facts["choosing"]["forwards"]


def test_adapt_reads_prompts_and_columns_as_the_run_did(cli: Cli, world: World, tmp_path: Path) -> None:
    rows = [{"Frage": f"{n} + 1?", "Antwort": f"{n + 1}", "other": "x"} for n in range(12)]
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for place, name in enumerate(("ada", "dee")):
        write(tasks / f"{name}.jsonl", *(row | {"Frage": name + row["Frage"]} for row in rows[place:]))
    columns = {"question": "Frage", "answer": "Antwort"}
    changes = {"tasks.folder": str(tasks), "tasks.columns": columns, "outer.tasks_per_step": 1}
    assert cli("train", config_file(world, tmp_path, changes=changes)).code == 0
    run, new = tmp_path / "run", write(tmp_path / "new.jsonl", *rows[:3])
    turn = json.dumps([{"role": "user", "content": "0 + 1?"}])
    said = cli("adapt", run, new, "--prompt", "0 + 1?", "--prompt", turn, "--json")
    answers = json.loads(said.out)["answers"]
    adapted = load_run(run).adapt(new)
    question, chat = adapted.generate([{"Frage": "0 + 1?"}, [{"role": "user", "content": "0 + 1?"}]])
    assert answers == {"0 + 1?": question, turn: chat}
    assert adapted.form == "question"
    other = cli("adapt", run, new, "--column", "question=other", "--column", "answer=Antwort", "--json")
    assert json.loads(other.out)["support_loss"] != json.loads(said.out)["support_loss"]
    wrong = [cli("adapt", run, new, "--column", text) for text in ("question", "=x", "question=", "question=nowhere")]
    assert [each.code for each in wrong] == [2] * 4
    assert "no file has this column" in wrong[-1].err


def test_adapt_refuses_what_it_cannot_read(cli: Cli, trained: Path, examples: Path, tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.jsonl", {"prompt": "p", "completion": 3}, {"prompt": "p"})
    said = cli("adapt", trained, bad)
    assert said.code == 2
    assert "bad.jsonl:1: completion: is of type int" in said.err
    assert "bad.jsonl:2: completion: is missing" in said.err
    empty = cli("adapt", trained, examples, "--prompt", "")
    assert (empty.code, "prompts[0]: no token to start from" in empty.err) == (2, True)
    taken = cli("adapt", trained, examples, "--output", tmp_path)
    assert (taken.code, "the folder holds other files" in taken.err) == (2, True)
    assert list(files_of(tmp_path)) == ["bad.jsonl"]


# export


@pytest.mark.parametrize("method", ["fomaml-lora", "fomaml"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_export_passes_its_check(cli: Cli, world: World, tmp_path: Path, method: str, dtype: str) -> None:
    assert cli("train", config_file(world, tmp_path, method, changes={"model.dtype": dtype})).code == 0
    copy = tmp_path / "copy"
    said = json.loads(cli("export", tmp_path / "run", "--check", "--json", "--output", copy).out)
    assert said["folder"] == str(copy)
    assert said["largest_logit_difference"] <= 1e-4
    exported = tmp_path / "run" / ("model" if method == "fomaml" else "adapter")
    assert same(tensors_of(copy), tensors_of(exported))
    plain = cli("export", tmp_path / "run", "--check")
    assert plain.code == 0
    assert plain.out.startswith(f"folder: {exported}\nlargest logit difference: ")


def test_an_adapter_is_merged_and_written_for_llama_cpp_from_its_run_and_alone(
    cli: Cli, world: World, trained: Path, tmp_path: Path
) -> None:
    pytest.importorskip("gguf", reason="the extra `demo` isn't installed")
    alone = shutil.copytree(trained / "adapter", tmp_path / "alone")
    for source, base in ((trained, []), (alone, ["--base", world.base])):
        merged, gguf = tmp_path / f"{source.name}-merged", tmp_path / f"{source.name}.gguf"
        asked = cli("export", source, "--merged", "--output", merged, "--gguf", gguf, "--check", "--json", *base)
        said = json.loads(asked.out)
        assert said == {
            "folder": str(merged),
            "gguf": str(gguf),
            "largest_logit_difference": said["largest_logit_difference"],
            "allowed": said["allowed"],
        }
        assert said["largest_logit_difference"] <= said["allowed"] < 1e-3
        assert (merged / "model.safetensors").exists()
        assert gguf.read_bytes()[:4] == b"GGUF"
    assert (tmp_path / "alone.gguf").read_bytes() == (tmp_path / f"{trained.name}.gguf").read_bytes()
    half = tmp_path / "half"
    said = json.loads(cli("export", trained, "--output", half, "--dtype", "bfloat16", "--check", "--json").out)
    assert said["largest_logit_difference"] <= said["allowed"] == 1e-4
    assert all(value.dtype == torch.bfloat16 for value in load_file(half / "adapter_model.safetensors").values())


def test_what_export_refuses(cli: Cli, trained: Path, tmp_path: Path) -> None:
    for argv, named in (
        ([trained, "--merged"], "--output: the folder"),
        ([trained, "--dtype", "bfloat16"], "nothing is written"),
        ([trained, "--dtype", "int8", "--output", tmp_path / "out"], "unknown dtype"),
        ([trained / "adapter"], "names no base model"),
        ([tmp_path], "no adapter_config.json here"),
    ):
        said = cli("export", *argv)
        assert said.code == 2
        assert named in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_tensor_fails_the_check(cli: Cli, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    assert cli("export", run, "--check").code == 0
    weights = run / "adapter" / "adapter_model.safetensors"
    tensors = load_file(weights)
    sorted(tensors.items())[3][1][0, 0] += 1e-3
    save_file(tensors, weights)
    for argv in (["export", run, "--check"], ["export", run]):
        said = cli(*argv)
        assert said.code == 3
        assert f"{weights}: not as the run wrote it" in said.err


def test_a_changed_scale_is_refused_and_fails_the_check(cli: Cli, trained: Path, tmp_path: Path) -> None:
    """The weights are as written, but PEFT computes something else from them."""
    run, example = tmp_path / "run", [Example("The quick brown fox", " jumps")]
    shutil.copytree(trained, run)
    described = run / "adapter" / "adapter_config.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | {"lora_alpha": 64}))
    said = cli("export", run, "--check")
    assert said.code == 2
    assert f"{described}: lora_alpha: not what the run's settings say" in said.err
    learned = load_run(trained)
    assert learned.check(trained / "adapter", example) <= 1e-4
    assert learned.check(run / "adapter", example) > 1e-4
