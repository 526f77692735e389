"""One comparison of every kind of arm, which many tests look at and none changes."""

from typing import Any

import pytest


@pytest.fixture(scope="session")
def whole(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The `small_matrices.Compared` of the small matrix."""
    from small_matrices import matrix_file, run_here

    folder = tmp_path_factory.mktemp("whole")
    return run_here(matrix_file(world, folder), folder / "comparison")
