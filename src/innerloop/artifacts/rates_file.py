"""The learned rates of a run's inner loop, in a file beside its export: written, and checked when they are read.

RATES         the file's name in a run's folder
write_rates   -> the file
read_rates    the file, which may come from somebody else -> rates
"""

from pathlib import Path

from safetensors.torch import save

from innerloop.artifacts.adapter_folder import stored_values
from innerloop.artifacts.finished import DamagedError, Finished, damaged
from innerloop.errors import Fault, Faults, UserError
from innerloop.files import write_whole
from innerloop.learning.inner_rates import InnerRates
from innerloop.numerics.tensors import TensorSet

RATES = "inner_rates.safetensors"


def write_rates(folder: Path, logs: TensorSet) -> Path:
    path = folder / RATES
    write_whole(path, save({name: value.detach().cpu().contiguous() for name, value in logs.items()}))
    return path


def read_rates(run: Finished, into: InnerRates) -> InnerRates:
    """`into`, fresh rates of the run's space, with what the run's file says: names, shapes, float32, finite.

    Raises UserError with every fault, and DamagedError where the file is not as the run wrote it.
    """
    path, right = run.folder / RATES, "the file as training left it: copy it again, or train again"
    if path.is_symlink() or not path.is_file() or RATES not in run.weights:
        raise UserError(Fault("no file of the rates that the run learned", str(path), expected=right))
    if damaged(run.folder, {RATES: run.weights[RATES]}):
        raise DamagedError(Fault("not as the run wrote it", str(path), expected=right))
    faults = Faults()
    values = stored_values(path, {name: tuple(value.shape) for name, value in into.logs.items()}, faults, of="this run")
    faults.raise_if_any()
    for name, value in into.logs.items():
        value.copy_(values[name])
    return into
