"""Every public name has an example in its docstring, and all examples of docstrings run as they stand.

They share a tiny model, six tasks, a finished run in runs/done, its results.json, and run.yaml, the config of another.
"""

import doctest
from collections.abc import Callable, Iterator
from importlib import import_module
from inspect import getdoc
from pathlib import Path
from typing import Any

import pytest

import innerloop
from innerloop import Adapted, Learned, MetaTrainer, MetaTrainingArguments, load_config, load_run
from innerloop.comparison.eval import evaluate, protocol_of
from innerloop.data.tasks import Example, Task
from innerloop.engine.parts import make_space, make_trainer
from innerloop.engine.session import prepare
from innerloop.learning.inner_loop import InnerLoop
from innerloop.learning.methods import option
from innerloop.numerics.optimizers import AdamW, Sgd
from innerloop.numerics.tensors import per_task
from innerloop.results.schema import Results
from innerloop.spaces.lora import LoraSettings
from small_runs import World, config_file, records

SOURCE = Path(innerloop.__file__).parent
MODULES = sorted(
    ".".join(("innerloop", *path.relative_to(SOURCE).with_suffix("").parts))
    for path in SOURCE.rglob("*.py")
    if ">>> " in path.read_text()
)
# What users of the door write, beside the names of innerloop itself.
BUILT_WITH = (AdamW, Example, InnerLoop, LoraSettings, Results.read, Sgd, Task, make_space, make_trainer, option)
TASKS = {name: records(name) for name in ("ada", "bob", "cy", "dee", "eve", "fay")}
EXAMPLES = [{"prompt": f"gus {row}:", "completion": " gus"} for row in range(4)]


@pytest.fixture(scope="module")
def shared(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Names that examples use, and in the folder that they run in the files."""
    model, tokenizer = world.model.model, world.model.tokenizer
    folder = tmp_path_factory.mktemp("docstrings")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config_file(world, folder, changes={"output_dir": "runs/three"})
        small = {"method": "meta-lora", "max_steps": 2, "tasks_per_step": 2}
        done, other = (MetaTrainingArguments(output_dir=f"runs/{name}", **small) for name in ("done", "other"))
        trainer = MetaTrainer(model, done, train_dataset=TASKS, held_out=["dee"], tokenizer=tokenizer)
        protocol = protocol_of(trainer.config, k=[0, 4], draws=2)
        evaluate(trainer.train(), protocol, lambda *_: None).results.write(Path("results.json"))
        learned = load_run("runs/done")
        session = prepare(load_config("run.yaml"), model=world.model)
        ((_, batches),) = session.streams()
        space, task_batch = session.space(), batches[0]
        names = (AdamW, MetaTrainer, MetaTrainingArguments, Path, Sgd, load_config, load_run)
        yield {
            **{each.__name__: each for each in names},
            **{"model": model, "tokenizer": tokenizer, "tasks": TASKS, "examples": EXAMPLES, "args": other},
            **{"trainer": trainer, "learned": learned, "adapted": learned.adapt(EXAMPLES)},
            **{"space": space, "start": per_task(space.shared, 2)},
            **{"support": task_batch.support, "task_batch": task_batch},
        }


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name: str, shared: dict[str, Any]) -> None:
    found = doctest.DocTestFinder().find(import_module(name))
    assert any(test.examples for test in found)
    assert failures(found, shared) == ""


def test_an_example_that_says_something_else_is_found(shared: dict[str, Any]) -> None:
    wrong = ">>> sorted(tasks)[:2]\n['ada', 'cy']\n"
    test = doctest.DocTestParser().get_doctest(wrong, {}, "wrong", None, None)
    assert "Got:\n    ['ada', 'bob']" in failures([test], shared)


def failures(tests: list[doctest.DocTest], shared: dict[str, Any]) -> str:
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    for test in tests:
        test.globs.update(shared)
        runner.run(test, out=said.append)
    return "".join(said)


def without_example(things: list[Any]) -> list[str]:
    return [getattr(each, "__qualname__", str(each)) for each in things if ">>> " not in (getdoc(each) or "")]


def public_methods(kind: type) -> list[Callable[..., Any] | property]:
    return [
        each for name, each in vars(kind).items() if name[0] != "_" and (callable(each) or isinstance(each, property))
    ]


def test_every_public_name_has_an_example() -> None:
    every = [getattr(innerloop, name) for name in innerloop.__all__]
    named = [each for each in every if each.__module__.startswith("innerloop.")]
    assert len(named) == len(every) - 1  # PEFT's LoraConfig
    methods = [each for kind in (Adapted, Learned, MetaTrainer) for each in public_methods(kind)]
    assert len(methods) > 12
    assert without_example([*named, *methods, *BUILT_WITH]) == []
    assert without_example([failures, Sgd]) == ["failures"]
