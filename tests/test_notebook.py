"""The example notebook runs from top to bottom, each cell twice, and shows how far it is.

Here on a tiny model and few steps; its committed outputs are of the packaged model.
"""

from pathlib import Path
from typing import Any

import pytest

from small_runs import World

WHERE = 'pip install "innerloop[notebook]"'
nbclient: Any = pytest.importorskip("nbclient", reason=WHERE)
nbformat: Any = pytest.importorskip("nbformat", reason=WHERE)
pytest.importorskip("ipykernel", reason=WHERE)

NOTEBOOK = Path(__file__).parents[1] / "examples" / "first_steps.ipynb"
MOST_LINES = 60  # of an output


def texts(cell: Any) -> list[str]:
    """What a cell shows, as text."""
    shown = (output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)
    return [text for text in shown if text]


def of(notebook: Any, call: str) -> Any:
    (found,) = [cell for cell in notebook.cells if cell.cell_type == "code" and call in cell.source]
    return found


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_every_cell_runs_twice_and_progress_is_seen(notebook: Any, world: World, tmp_path: Path) -> None:
    of(
        notebook, "MODEL ="
    ).source = f'MODEL, STEPS, LAYERS, OUTPUT = {str(world.base)!r}, 2, "last-1", "runs/first_steps"'
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    training, drawn = list[str](), list[str]()
    with client.setup_kernel():
        for place, cell in enumerate(notebook.cells):
            for _ in range(2 if cell.cell_type == "code" else 0):
                client.execute_cell(cell, place)
                if "trainer.train(" in cell.source:
                    training += texts(cell)
                    drawn += [output.data["text/html"] for output in cell.outputs if "text/html" in output.data]
    first, learned, *again = training
    assert first.splitlines()[-1].startswith("training  2/2  loss ")
    assert "training  2/2  loss " in drawn[0]
    assert "<progress" not in drawn[0]  # nothing is under way any more
    assert not any("training" in text for text in again)  # it is done, and was loaded
    assert learned.startswith("Learned(meta-lora on ")
    assert learned in again
    (scored, *_) = texts(of(notebook, "trainer.evaluate("))
    assert "scoring  3/3" in scored
    assert all(len("\n".join(texts(cell)).splitlines()) < MOST_LINES for cell in notebook.cells if "outputs" in cell)
    assert (tmp_path / "adapters" / "new_customer" / "adapter_model.safetensors").exists()


def test_its_outputs_are_those_of_a_whole_run(notebook: Any) -> None:
    """Committed as they came: no cell was left out, and none failed."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    (steps,) = [line for line in of(notebook, "MODEL =").source.splitlines() if line.startswith("STEPS")]
    count = steps.split("=")[1].split(",")[0].strip()
    assert any(f"training  {count}/{count}" in text for text in texts(of(notebook, "trainer.train(")))
    assert "k     exact answers" in "\n".join(texts(of(notebook, "trainer.evaluate(")))
