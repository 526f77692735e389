"""Configs to begin with: copied, changed, trained.

recipes       name -> the sentence that it begins with
copy_recipe   writes one where it is asked to, over nothing
"""

from importlib.resources import files
from pathlib import Path

from innerloop.errors import Fault, UserError, did_you_mean
from innerloop.files import write_text


def recipes() -> dict[str, str]:
    """Of every recipe, by name."""
    texts = {
        path.name.removesuffix(".yaml"): path.read_text("utf-8")
        for path in files(__name__).iterdir()
        if path.name.endswith(".yaml")
    }
    return {name: text.splitlines()[0].lstrip("# ") for name, text in sorted(texts.items())}


def copy_recipe(name: str, to: Path) -> Path:
    """The file that was written. Raises UserError for an unknown recipe, and where a file is already."""
    known = recipes()
    if name not in known:
        raise UserError(Fault("no such recipe", "recipes cp", name, did_you_mean(name, known)))
    target = to / f"{name}.yaml" if to.is_dir() else to
    if target.exists():
        raise UserError(
            Fault("this file is there already", str(target), expected="another name; nothing is overwritten")
        )
    try:
        write_text(target, files(__name__).joinpath(f"{name}.yaml").read_text("utf-8"))
    except OSError as error:
        raise UserError(Fault(f"can't be written: {error.strerror}", str(target))) from None
    return target
