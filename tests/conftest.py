"""One thread for every test process: tiny tensors gain nothing from more, and workers share the cores."""

from typing import Any

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The `small_runs.World` that runs share; none of them changes it."""
    from small_runs import new_world

    return new_world(tmp_path_factory.mktemp("world"))
