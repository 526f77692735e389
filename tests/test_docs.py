"""The documents say what is there: generated pages, files, links, tests and keys by name, numbers of passes."""

import importlib.util
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import pytest
import torch
import typer
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from helpers import Tasks, all_space, lora_space, perturbed
from innerloop.artifacts.export import export_adapter
from innerloop.cli import app
from innerloop.config.schema import EVERYTHING
from innerloop.data.tasks import Batch
from innerloop.engine.non_finite import mean_of
from innerloop.engine.trainer import Trainer
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import METHODS, Fomaml
from innerloop.learning.passes import query_gradient
from innerloop.numerics.optimizers import AdamW, Sgd
from innerloop.numerics.tensors import TensorSet, per_task, zeros_like
from innerloop.spaces.lora import LoraSettings, LoraSpace, fresh_lora
from innerloop.spaces.loss import AnswerLoss
from tiny import tiny_model

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "innerloop"
NOTES = sorted((ROOT / "docs" / "design").glob("[0-9]*.md"))
LOG = ROOT / "docs" / "design" / "log.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *NOTES, LOG]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_has_the_demo_as_it_was_measured() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    found = json.loads((ROOT / "benchmarks" / "results" / "demo.json").read_text("utf-8"))
    for row in found["means"]:
        (line,) = [line for line in readme.splitlines() if line.startswith(f"| {row['adaptation']} |")]
        assert f"{row['nats']:.2f} / {row['exact']:.0%}" in line
    (primary,) = [row for row in found["contrasts"] if row["primary"]]
    low, high = primary["interval"]
    said = " ".join(readme.split())
    assert f"{primary['mean']:.2f} nats higher (95 % interval {low:+.2f} to {high:+.2f}: {primary['verdict']})" in said


def test_the_generated_pages_are_fresh(generate: ModuleType, tmp_path: Path, monkeypatch: Any) -> None:
    assert generate.main(["--check"]) == 0, "run `python docs/generate.py`"
    (tmp_path / "methods.md").write_text((ROOT / "docs" / "methods.md").read_text("utf-8") + " ")
    monkeypatch.setattr(generate, "DOCS", tmp_path)
    assert generate.main(["--check"]) == 1
    assert generate.stale(tmp_path, generate.pages()) == ["methods.md", "cli.md", "measurements.md"]
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_the_table_of_plans_has_every_method_and_what_is_planned_now(generate: ModuleType) -> None:
    page = read(ROOT / "docs" / "plan.md")
    table = page.split(generate.TABLE_BEGIN)[1].split(generate.TABLE_END)[0].strip()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == [f"`{name}`" for name in METHODS]
    assert {row[-1] for row in rows} <= {"predicted", "measured"}
    (stated,) = [row[2] for row in rows if row[0] == "`fomaml-lora`"]
    assert [stated] == generate.planned("fomaml-lora", ["checkpointed"]), "run `python docs/generate.py --plan`"
    assert generate.with_table(page, table + "\n") == page
    assert generate.with_table(page, "another\n") != page


def test_every_method_and_every_verb_is_in_the_docs() -> None:
    methods, commands = (read(ROOT / "docs" / name) for name in ("methods.md", "cli.md"))
    for name in METHODS:
        assert f"| `{name}` |" in methods
        assert re.search(rf"^### .*`{name}`", methods, re.MULTILINE)
    verbs: Mapping[str, Any] = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    assert re.findall(r"^## (.*)$", commands, re.MULTILINE) == list(verbs)
    for verb, command in verbs.items():
        text = commands.split(f"\n## {verb}\n")[1].split("\n## ")[0]
        assert all(name in text for parameter in command.params for name in parameter.opts if name[0] == "-")


def test_the_sizes_are_those_of_the_shapes() -> None:
    """By hand: 30 layers of width 576 and 1536, 192 for keys and values; embeddings of 49152, tied."""
    linears = [(576, 576), (576, 192), (576, 192), (576, 576), (576, 1536), (576, 1536), (1536, 576)]
    model = 49152 * 576 + 30 * (sum(i * o for i, o in linears) + 2 * 576) + 576
    lora = 30 * sum(16 * (i + o) for i, o in linears)
    text = read(ROOT / "docs" / "methods.md")
    for name, row in METHODS.items():
        count = model if row.space.trains_base else lora
        assert f"| `{name}` | {row.title} |" in text
        assert f"| {count:,} | {100 * count / model:.2f} % |" in text.split(f"| `{name}` |")[1].split("\n")[0]


class Counted(LoraSpace):
    """Counts tasks' passes."""

    gradients = products = 0

    def loss_and_gradient(
        self, values: Mapping[str, Tensor], batch: Batch, *, into: TensorSet | None = None
    ) -> tuple[Tensor, TensorSet | None]:
        self.gradients += batch.tasks
        return super().loss_and_gradient(values, batch, into=into)

    def hessian_vector_product(
        self, values: Mapping[str, Tensor], batch: Batch, vector: Mapping[str, Tensor]
    ) -> TensorSet:
        self.products += batch.tasks
        return super().hessian_vector_product(values, batch, vector)


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_the_passes_that_the_page_says(name: str, clip: float | None) -> None:
    n, K = 2, 3
    model, rule = tiny_model("llama", layers=1), METHODS[name].rule
    space, tasks = Counted(model, AnswerLoss(model), LoraSettings(r=1), seed=0), Tasks(tasks=n, steps=K).batch
    inner = {"inner": InnerLoop(steps=K, optimizer=Sgd(lr=0.1, clip=clip))} if "inner" in rule.options() else {}
    rule(**inner).outer_gradient(space, per_task(space.shared, n), tasks, zeros_like(space.shared))
    section = read(ROOT / "docs" / "methods.md").split("\n### ")
    (passes,) = [re.findall(r"- Passes: (.*)\.\n", text)[0] for text in section if f"`{name}`" in text.split("\n")[0]]
    said = {what: value(count, n=n, K=K) for count, what in (split(part) for part in passes.split(", "))}
    more = said.get("gradients more with inner.clip", 0) if clip else 0
    assert space.gradients == said["gradients"] + more
    assert space.products == said.get("Hessian-vector products", 0)


def split(part: str) -> tuple[str, str]:
    count, what = re.fullmatch(r"([nK0-9+*() ]+) ([Hg].*)", part).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return count, what


def value(count: str, *, n: int, K: int) -> int:
    return eval(count, {"n": n, "K": K})


@pytest.mark.parametrize(("kind", "ratio"), [("all", 3), ("lora", 2)])
def test_a_hessian_vector_product_costs_the_gradients_that_the_page_says(kind: str, ratio: int) -> None:
    assert "about three gradients where all parameters are trained, of about two with LoRA" in " ".join(
        read(ROOT / "docs" / "methods.md").split()
    )
    model = tiny_model("llama", layers=2)
    space = lora_space(model) if kind == "lora" else all_space(model)
    batch = Tasks(tasks=1).batch.support[0]
    values = perturbed(space.shared, 1)
    gradient = arithmetic(lambda: space.loss_and_gradient(values, batch))
    product = arithmetic(lambda: space.hessian_vector_product(values, batch, values))
    assert product / gradient == pytest.approx(ratio, rel=0.2)


def arithmetic(call: Any) -> int:
    """Operations in matrix products."""

    def addmm(_: Any, left: Any, right: Any, **__: Any) -> int:
        return 2 * left[0] * left[1] * right[1]

    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: addmm}) as counter:
        call()
    return counter.get_total_flops()


def test_the_architecture_draws_every_file_and_no_other() -> None:
    text = read(ROOT / "ARCHITECTURE.md")
    rooms = {str(path.parent.relative_to(SOURCE)) + "/" for path in SOURCE.rglob("*/__init__.py")} - {"./"}
    files = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if path.name != "__init__.py"}
    assert drawn(text) == rooms | files
    without = "\n".join(line for line in text.splitlines() if "lora.py  " not in line)
    assert (rooms | files) - drawn(without) == {"spaces/lora.py"}


def drawn(text: str) -> set[str]:
    """The paths of a tree of lines, folders with a slash at the end."""
    tree = text.split("```text\nsrc/innerloop/\n")[1].split("```")[0]
    found: set[str] = set()
    folders: list[str] = []
    for indent, name in re.findall(r"^((?:│   |    )*)[├└]── (\S+) +\S", tree, re.MULTILINE):
        folders[len(indent) // 4 :] = [name]
        found.add("".join(folders))
    assert len(found) == len(tree.splitlines())
    return found


def test_the_architecture_has_the_order_of_imports() -> None:
    contracts = tomllib.loads(read(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    order = "\n".join(layer.replace("innerloop.", "") for layer in layers)
    assert f"```text\n{order}\n```" in read(ROOT / "ARCHITECTURE.md")


def test_the_architecture_walks_as_a_step_goes(tmp_path: Path) -> None:
    """The functions that the walk names, in its order, are called in that order by a step that trains and exports."""
    walk = read(ROOT / "ARCHITECTURE.md").split("## One parameter, walking through\n")[1].split("\n## ")[0]
    parts = (fresh_lora, Trainer, per_task, InnerLoop, LoraSpace, Sgd, query_gradient, mean_of, AdamW, export_adapter)
    known = {part.__name__: part for part in parts}
    names = [name for name in re.findall(r"`(\w+(?:\.\w+)?)`", walk) if name.partition(".")[0] in known]
    assert {name.partition(".")[0] for name in names} == known.keys()
    functions = {name: code_of(known, name) for name in names if name not in ("LoraSpace.shared", "Trainer.gradient")}
    called: list[CodeType] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in functions.values():
            called.append(frame.f_code)

    sys.setprofile(note)
    try:
        model = tiny_model("llama", layers=1)
        space = LoraSpace(model, AnswerLoss(model), LoraSettings(r=1), seed=0)
        rule = Fomaml(inner=InnerLoop(steps=2, optimizer=Sgd(lr=0.1)))
        Trainer(space, rule, AdamW(lr=0.1, clip=1.0), tasks_per_forward=2).step(Tasks(tasks=3).batch)
        export_adapter(tmp_path / "x", model, values=space.shared, lora=space.settings, base_name="somebody/base")
    finally:
        sys.setprofile(None)
    order = [functions[name] for name in names if name in functions]
    assert in_order(order, called)
    assert not in_order([*order[1:], order[0]], called)
    stored = load_file(tmp_path / "x" / "adapter_model.safetensors")
    assert re.findall(r"`(base_model\S+)`", walk)[0].replace(".29.", ".0.") in stored


def code_of(known: Mapping[str, Any], name: str) -> CodeType:
    owner, _, attribute = name.partition(".")
    return (getattr(known[owner], attribute) if attribute else known[owner]).__code__


def test_links_lead_somewhere(tmp_path: Path) -> None:
    assert [problem for page in PAGES for problem in dead_links(page)] == []
    (tmp_path / "a.md").write_text("# One `two`\n[a](#one-two) [b](b.md) [c](a.md#three) `[d](d.md)`")
    assert dead_links(tmp_path / "a.md") == ["a.md: b.md", "a.md: a.md#three"]


def dead_links(page: Path) -> list[str]:
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))
    local = [link for link in links if not link.startswith(("http://", "https://"))]
    return [f"{page.name}: {link}" for link in local if not leads_somewhere(page, *link.partition("#")[::2])]


def leads_somewhere(page: Path, target: str, anchor: str) -> bool:
    other = page.parent / target if target else page
    return other.exists() and (not anchor or anchor in anchors(other))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_tests_and_keys_that_the_docs_name_exist() -> None:
    for page in PAGES:
        assert unknown_tests(read(page)) == [], page.name
        assert unknown_keys(prose(page)) == [], page.name
    assert unknown_tests("`tests/test_docs.py::test_no` `tests/no.py` `tests/tiny.py`") == [
        "tests/test_docs.py::test_no",
        "tests/no.py",
    ]
    assert unknown_keys("`tasks.only` `method.lora` `outer.nothing`") == ["outer.nothing"]


def unknown_tests(text: str) -> list[str]:
    found = re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", text)
    return [f"{file}::{name}" if name else file for file, name in found if not is_test(ROOT / file, name)]


def is_test(file: Path, name: str) -> bool:
    return file.is_file() and (not name or f"def {name}(" in read(file))


def unknown_keys(text: str) -> list[str]:
    found = re.findall(r"`((?:model|tasks|method|outer|memory)\.[a-z_.]+)`", text)
    return [key for key in found if key not in EVERYTHING]


def test_design_notes_are_numbered_and_short() -> None:
    assert [note.name[:5] for note in NOTES] == [f"{number:04}-" for number in range(1, len(NOTES) + 1)]
    for number, note in enumerate(NOTES, start=1):
        text = read(note)
        assert text.startswith(f"# {number}. ")
        assert len(text.splitlines()) < 40
        wanted = ["Context", "Choice", "Checked", "Alternatives"]
        assert in_order(wanted, re.findall(r"^## (.*)$", text, re.MULTILINE))
        assert "::test_" in text


def in_order(wanted: Iterable[Any], found: Iterable[Any]) -> bool:
    rest = iter(found)
    return all(each in rest for each in wanted)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", read(page), flags=re.DOTALL | re.MULTILINE)


def read(path: Path) -> str:
    return path.read_text("utf-8")
