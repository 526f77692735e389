"""One thread for every test process: tiny tensors gain nothing from more, and workers share the cores.

TEST_THREADS=2 in the environment is another number, for `make test-cpus`: no verdict may depend on it.

--long        the rows that try once more what a shorter one tries already; `long` says whether they run
world         the `small_runs.World` that runs share; none of them changes it
runs          method -> a trained run, made when it is first asked for
cli           the command line in this process
smollm        the packaged SmolLM2-135M; a test that asks for it is skipped where that isn't installed
traced_once   forecasts that would trace the same share a trace, which takes longer than a tiny run
"""

import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

torch.set_num_threads(int(os.environ.get("TEST_THREADS", "1")))
_CACHE = TemporaryDirectory()  # no test writes into the cache of whoever runs it
os.environ["INNERLOOP_CACHE"] = _CACHE.name


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the rows marked `long`, and robustness rows at full length")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if "long" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="more of the same: make test-long"))


@pytest.fixture(scope="session")
def long(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--long"))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from small_runs import new_world

    return new_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def runs(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from small_runs import small_run

    folder, done = tmp_path_factory.mktemp("runs"), dict[str, Any]()

    def of(method: str) -> Any:
        if method not in done:
            done[method] = small_run(world, method, folder / method)
        return done[method]

    return of


@pytest.fixture(scope="session")
def smollm() -> Any:
    """Dequantized into the tests' cache, which takes a while."""
    from innerloop.errors import UserError
    from innerloop.loading import models
    from innerloop.loading.gguf_files import PACKAGED

    name = next(iter(PACKAGED))
    try:
        models.load_tokenizer(name)
    except UserError as error:
        pytest.skip(str(error))
    return models.load(name)


@pytest.fixture(scope="session", autouse=True)
def traced_once() -> Iterator[None]:
    """Of equal arguments, to the byte. Tests of a trace itself take it from where it is defined, and trace anew."""
    from innerloop.planning import forecast

    trace, found = forecast.trace, dict[bytes, Any]()

    def kept(config: Any, shape: Any, tasks: Any, **options: Any) -> Any:
        asked = config.model_copy(update={"output_dir": Path("anywhere")}).model_dump_json()
        key = pickle.dumps((asked, shape.to_dict(), tasks, options))
        if key not in found:
            found[key] = trace(config, shape, tasks, **options)
        return found[key]

    forecast.trace = kept
    yield
    forecast.trace = trace


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """An exception that the command lets through fails the test."""
    from innerloop.cli import main
    from small_runs import Said

    def run(*argv: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["innerloop", *map(str, argv)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Said(int(ended.value.code or 0), out, err)

    return run
