"""A cell scores what its arm is: the run's own values, an adapter of its own for each task, or none at all."""

import json
import shutil
from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from torch import nn

from innerloop.comparison.cells import run_cell
from innerloop.comparison.matrix import cells, common_config
from innerloop.data.token_ids import Encoded
from innerloop.engine.session import Session, prepare
from innerloop.errors import UserError
from innerloop.evaluation.kshot import draw_support
from innerloop.results.cell_files import CellFile, PieceFile
from innerloop.results.names import COST, UNTRAINED
from reference import naive
from small_matrices import HELD_OUT, TRAIN, Compared, K, matrix_file, run_here, scores_of
from small_runs import World, files_of

SEED = 1
OWN = naive.Inner(steps=5, lr=3e-3, adamw={"betas": (0.9, 0.99), "weight_decay": 0.0})  # of an arm without inner loop


@pytest.fixture(scope="module")
def common(world: World, whole: Compared) -> Session:
    return prepare(common_config(whole.matrix, SEED), model=world.model)


@pytest.fixture
def copied(whole: Compared, tmp_path: Path) -> Compared:
    return whole._replace(folder=Path(shutil.copytree(whole.folder, tmp_path / "comparison")))


def silent(stage: str, done: int, total: int) -> None: ...


def nats(model: nn.Module, examples: Sequence[Encoded]) -> list[float]:
    return [naive.answer_nats(model, example) for example in examples]


def peft_model(world: World, folder: Path) -> Any:
    return PeftModel.from_pretrained(deepcopy(world.model.model), folder, is_trainable=True).eval()


def scored(whole: Compared, cell: str, piece: str, task: str) -> list[float]:
    return scores_of(whole.cell(cell))[piece]["tasks"][task]["nats"]


# what is scored


def test_every_arm_scores_the_same_examples_of_the_same_tasks(whole: Compared, common: Session) -> None:
    by_key: dict[tuple[Any, ...], list[dict[str, list[str]]]] = {}
    for cell in cells(whole.matrix):
        for piece in scores_of(whole.cell(cell.name)).values():
            ids = {name: task["ids"] for name, task in piece["tasks"].items()}
            by_key.setdefault((piece["table"], piece["k"], piece["draw"]), []).append(ids)
    assert {key: len(found) for key, found in by_key.items()} == {
        ("seen", 0, 0): 6,  # all but in-context
        ("unseen", 0, 0): 5,  # neither Std LoRA, which is the base there
        ("unseen", K, 0): 1 + 2 * 5,
        ("unseen", K, 1): 1 + 2 * 5,
    }
    tests = {
        task.task.name: [example.id for example in task.test]
        for task in (*common.train, *common.validation, *common.held_out)
    }
    for (table, *_), found in by_key.items():
        names = TRAIN if table == "seen" else HELD_OUT
        assert all(ids == {name: tests[name] for name in names} for ids in found)


def test_files_are_what_a_summary_reads(whole: Compared) -> None:
    for cell in cells(whole.matrix):
        result = CellFile.model_validate_json((whole.cell(cell.name) / "result.json").read_bytes())
        assert (result.cell, result.status, result.cost_only) == (cell.name, "done", cell.budget == COST)
        for path in (whole.cell(cell.name) / "scores").glob("*.json"):
            piece = PieceFile.model_validate_json(path.read_bytes())
            assert (piece.arm, piece.budget, piece.seed) == cell
            assert path.stem == f"{piece.table}-k{piece.k}-draw{piece.draw}-{piece.how}"
    assert whole.results.status == "done"
    assert {row.status for row in whole.results.rows} == {"done"}


def test_an_arm_for_its_cost_is_never_scored(whole: Compared) -> None:
    cell = whole.cell("fomaml-cost-1")
    result = json.loads((cell / "result.json").read_text())
    assert (result["steps"], result["forgetting"]) == (2, [])
    assert result["tokens"] > 0
    assert not (cell / "scores").exists()


def test_training_stays_within_its_budget(whole: Compared) -> None:
    for cell in cells(whole.matrix):
        if cell.budget == "tokens":
            result = json.loads((whole.cell(cell.name) / "result.json").read_text())
            assert result["steps"] == json.loads((whole.cell(cell.name) / "steps.json").read_text())["steps"]
            tokens = [0, *result["training"]["tokens"]]
            a_step = max(after - before for before, after in pairwise(tokens))
            assert 3000 - 2 * a_step < result["tokens"] <= 3000, cell.name


# whose values


def test_shared_values_are_scored_as_peft_reads_them(world: World, whole: Compared, common: Session) -> None:
    """And not those of the base, which unadapted weights would give."""
    base = {task.task.name: nats(world.model.model, task.test) for task in (*common.train, *common.held_out)}
    for arm in ("joint-lora", "fomaml-lora", "meta-lora"):
        cell = f"{arm}-tokens-1"
        model = peft_model(world, whole.cell(cell) / "run" / "adapter")
        for table, tasks in (("seen", common.train), ("unseen", common.held_out)):
            for task in tasks:
                found = scored(whole, cell, f"{table}-k0-draw0-none", task.task.name)
                assert found == pytest.approx(nats(model, task.test), rel=1e-4)
                assert found != pytest.approx(base[task.task.name], rel=1e-4)
    for task in common.train:
        assert scored(whole, "base-1", "seen-k0-draw0-none", task.task.name) == pytest.approx(base[task.task.name])


@pytest.mark.parametrize("arm", ["joint-lora", "lora", "joint"])
def test_unseen_tasks_are_scored_after_adapting_to_the_drawn_examples(
    world: World, whole: Compared, common: Session, arm: str
) -> None:
    """By hand: a copy of the arm's model, torch's AdamW, the support of draw 1."""
    (task,) = common.held_out
    run = whole.cell(f"{arm}-tokens-1") / "run"
    inner = OWN
    if arm == "joint":
        model = type(world.model.model).from_pretrained(run / "model").eval()
        inner = naive.Inner(steps=3, lr=1e-3)
    elif arm == "joint-lora":
        model = peft_model(world, run / "adapter")
    else:  # Std LoRA starts from a fresh LoRA, whose A follows from the seed
        space = common.space()
        model = naive.with_lora(world.model.model, space.shared, space.settings)  # pyright: ignore[reportAttributeAccessIssue]
    supports = [draw_support(task, K, seed=SEED, draw=draw) for draw in range(2)]
    found = [scored(whole, f"{arm}-tokens-1", f"unseen-k{K}-draw{draw}-own", "cy") for draw in range(2)]
    for draw, support in enumerate(supports):
        adapted = naive.adapt(model, [support] * inner.steps, inner)
        assert found[draw] == pytest.approx(nats(adapted, task.test), rel=1e-5)
        assert found[draw] != pytest.approx(nats(model, task.test), rel=1e-4)
    assert found[0] != pytest.approx(found[1], rel=1e-4)


def test_std_lora_has_an_adapter_of_its_own_for_each_seen_task(world: World, whole: Compared, common: Session) -> None:
    folder = whole.cell("lora-tokens-1") / "run" / "adapters"
    assert sorted(path.name for path in folder.iterdir()) == TRAIN, "none of an unseen task"
    models = {name: peft_model(world, folder / name) for name in TRAIN}
    for task, other in zip(common.train, reversed(TRAIN), strict=True):
        name = task.task.name
        found = scored(whole, "lora-tokens-1", "seen-k0-draw0-none", name)
        assert found == pytest.approx(nats(models[name], task.test), rel=1e-4)
        assert found != pytest.approx(nats(models[other], task.test), rel=1e-4)
        assert found != pytest.approx(nats(world.model.model, task.test), rel=1e-4)


def test_std_lora_may_have_lora_options_of_its_own(world: World, tmp_path: Path) -> None:
    """Its adapters are read as they were trained: at another alpha they would say something else."""
    lora = {"method": {"lora": {"r": 3, "lora_alpha": 30, "layers": "all"}}, "memory": {"trunk_cache": False}}
    changes = {"arms": {"lora": lora}, "evaluation.draws": 1, "evaluation.k": [0], "budgets.tokens": 1500}
    found = run_here(matrix_file(world, tmp_path, changes | {"cost_only.arms": {}}), tmp_path / "comparison")
    common = prepare(common_config(found.matrix, SEED), model=world.model)
    for task in common.train:
        model = peft_model(world, found.cell("lora-tokens-1") / "run" / "adapters" / task.task.name)
        expected = nats(model, task.test)
        assert scored(found, "lora-tokens-1", "seen-k0-draw0-none", task.task.name) == pytest.approx(expected, rel=1e-4)


def test_in_context_is_the_base_behind_the_same_examples(world: World, whole: Compared, common: Session) -> None:
    """Nothing is adapted: the base, by hand, with the support that the others adapt to in the prompt."""
    cell = whole.cell("in-context-1")
    assert sorted(path.name for path in cell.iterdir()) == ["result.json", "scores"], "no adapter to read"
    tokenizer = world.model.tokenizer
    (task,) = common.held_out
    examples = {example.id: example for example in (*task.task.pool, *task.task.test)}
    for draw in range(2):
        support = [examples[encoded.id] for encoded in draw_support(task, K, seed=SEED, draw=draw)]
        before = "".join(f"{example.prompt}{example.answer}\n\n" for example in support)
        expected: list[float] = []
        for example in task.task.test:
            prompt = tokenizer.encode(f"{before}{example.prompt}", add_special_tokens=False)
            answer = [*tokenizer.encode(example.answer, add_special_tokens=False), tokenizer.eos_token_id]
            one = Encoded("", (*prompt, *answer), len(prompt))
            expected += nats(world.model.model, [one])
        assert scored(whole, "in-context-1", f"unseen-k{K}-draw{draw}-none", "cy") == pytest.approx(expected, rel=1e-4)
    assert len(scores_of(cell)) == 2


def test_tuned_steps_come_from_the_validation_tasks_grid(whole: Compared) -> None:
    for cell in cells(whole.matrix):
        note = whole.cell(cell.name) / "tuned.json"
        assert note.exists() == (cell.arm not in UNTRAINED and cell.budget != COST)
        if note.exists():
            chosen = json.loads(note.read_text())[str(K)]
            grid = whole.matrix.protocol(cell.arm, 1).grid
            assert chosen["lr"] in grid.lrs
            assert chosen["steps"] in grid.steps
            for piece in scores_of(whole.cell(cell.name)).values():
                if piece["how"] == "tuned":
                    assert (piece["lr"], piece["steps"]) == (chosen["lr"], chosen["steps"])


def test_forgetting_is_that_of_each_adaptation(whole: Compared) -> None:
    for cell in cells(whole.matrix):
        found = json.loads((whole.cell(cell.name) / "result.json").read_text())["forgetting"]
        hows = [(part["how"], part["k"], list(part["kl"])) for part in found]
        adapted = [("own", K, HELD_OUT), ("tuned", K, HELD_OUT)]
        if cell.arm in UNTRAINED or cell.budget == COST:
            assert hows == []
        else:
            assert hows == ([] if cell.arm == "lora" else [("none", 0, ["shared"])]) + adapted
            assert all(kl > 0 for part in found for kl in part["kl"].values())


# going on


def test_a_cell_goes_on_behind_its_last_piece_and_ends_as_if_nothing_was(whole: Compared, copied: Compared) -> None:
    for name in ("meta-lora-tokens-1", "lora-tokens-1", "in-context-1"):
        cell = copied.cell(name)
        kept, *lost = sorted((cell / "scores").glob("*.json"))
        stamp = kept.stat().st_mtime_ns
        for path in (cell / "result.json", cell / "forgetting.json", *lost):
            path.unlink(missing_ok=True)
        said: list[tuple[str, int, int]] = []
        run_cell(copied.folder, name, lambda *stage, said=said: said.append(stage))
        assert "training" not in {stage for stage, *_ in said}
        assert kept.stat().st_mtime_ns == stamp
        assert files_of(cell) == files_of(whole.cell(name)), "every number, to the last digit"


def test_a_training_that_was_killed_goes_on_with_its_steps(whole: Compared, copied: Compared) -> None:
    name = "fomaml-lora-tokens-1"
    cell = copied.cell(name)
    manifest = json.loads((cell / "run" / "manifest.json").read_text())
    (cell / "run" / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    shutil.rmtree(cell / "scores")
    for left in ("result.json", "forgetting.json", "tuned.json"):
        (cell / left).unlink()
    said: list[tuple[str, int, int]] = []
    run_cell(copied.folder, name, lambda *stage: said.append(stage))
    steps = json.loads((cell / "steps.json").read_text())["steps"]
    assert [done for stage, done, total in said if (stage, total) == ("training", steps)] == list(range(1, steps + 1))
    assert scores_of(cell) == scores_of(whole.cell(name))


def test_steps_are_decided_once(copied: Compared) -> None:
    """Of a budget of seconds, another day would buy others."""
    name = "joint-lora-tokens-1"
    cell = copied.cell(name)
    shutil.rmtree(cell / "run")
    (cell / "steps.json").write_text(json.dumps({"budget": "tokens", "amount": 3000, "steps": 1}))
    run_cell(copied.folder, name, silent)
    assert json.loads((cell / "result.json").read_text())["steps"] == 1


def test_seconds_are_a_budget_like_the_others(world: World, tmp_path: Path) -> None:
    changes = {
        "arms": {"joint": {}, "lora": {}},
        "budgets": {"seconds": 0.1, "examples": 20},
        "evaluation.k": [0],
        "evaluation.forgetting_prompts": 0,
    }
    found = run_here(matrix_file(world, tmp_path, changes), tmp_path / "comparison")
    for arm in ("joint", "lora"):
        noted = json.loads((found.cell(f"{arm}-seconds-1") / "steps.json").read_text())
        assert (noted["budget"], noted["amount"]) == ("seconds", 0.1)
        examples = json.loads((found.cell(f"{arm}-examples-1") / "steps.json").read_text())
        assert examples == {"budget": "examples", "amount": 20, "steps": 2}, "5 of 2 tasks, or of 2 adapters"
    assert {row.budget for row in found.results.rows} == {"seconds", "examples", COST}


def test_a_cell_that_can_not_be_run_says_why(copied: Compared) -> None:
    cell = copied.cell("joint-lora-tokens-1")
    weights = next((cell / "run").rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    (cell / "result.json").unlink()
    shutil.rmtree(cell / "scores")
    with pytest.raises(UserError, match="not as the run wrote it"):
        run_cell(copied.folder, "joint-lora-tokens-1", silent)
    assert not (cell / "result.json").exists()
