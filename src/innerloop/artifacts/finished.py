"""The folder of a finished run, which may come from somebody else: its manifest and files, checked before their use.

finished      a folder -> Finished
Finished      what its manifest says
damaged       the files that are not as their digests say
DamagedError  weights that are not on disk any more as the run wrote them
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from innerloop.artifacts.adapter_folder import check_files
from innerloop.config.loading import RunConfig, load_config
from innerloop.errors import Fault, Faults, UserError
from innerloop.files import MANIFEST, file_digest, read_json

MANIFEST_BYTES = 64_000_000  # it names every task of the run

_DIGEST = re.compile(r"[0-9a-f]{64}")
_RIGHT = "what the run wrote"


class DamagedError(UserError):
    """The weights of a run are not on disk any more as it wrote them."""

    exit_code = 3


@dataclass(frozen=True)
class Finished:
    """name, source, fingerprint: of the base model; weights: the digest of each file of weights."""

    folder: Path
    config: RunConfig
    name: str
    source: str
    fingerprint: str
    weights: Mapping[str, str]

    def check_weights(self, exported: Path) -> None:
        """`exported`, a folder in the run's, has to hold the weights that the manifest names, and no others.

        Raises UserError for a folder that leads elsewhere, holds links or code, or weights without a digest;
        DamagedError for weights that are not as they were written.
        """
        faults, inside = Faults(), exported.relative_to(self.folder)
        if exported.resolve() != self.folder.resolve() / inside:
            faults.add("leads out of the run's folder", str(exported), str(exported.resolve()), "no links")
        check_files(exported, faults)
        faults.raise_if_any()
        here = {path.relative_to(self.folder).as_posix() for path in exported.rglob("*.safetensors")}
        written = {name for name in self.weights if name.startswith(f"{inside.as_posix()}/")}
        for name in sorted(here - written):
            faults.add(
                "weights that the manifest doesn't name", str(self.folder / name), expected="as the run wrote it"
            )
        if not written:
            faults.add("names no weights", f"{self.folder / MANIFEST}: weights", expected=f"files of {inside}/")
        faults.raise_if_any()
        problem, right = "not as the run wrote it", "the file as training left it: copy it again, or train again"
        if harmed := damaged(self.folder, {name: self.weights[name] for name in written}):
            raise DamagedError(*(Fault(problem, str(self.folder / name), expected=right) for name in harmed))


def damaged(folder: Path, written: Mapping[str, str]) -> list[str]:
    """The names in `folder` whose file is missing or has another sha256."""
    return [
        name
        for name, digest in sorted(written.items())
        if not (folder / name).is_file() or file_digest(folder / name) != digest
    ]


def finished(folder: Path) -> Finished:
    """Raises UserError where there is no finished run, and with every fault of its manifest."""
    manifest, faults = folder / MANIFEST, Faults()
    if manifest.is_symlink() or not manifest.is_file():
        raise UserError(Fault(f"no {MANIFEST} here", str(folder), expected="the output_dir of a finished run"))
    said = read_json(manifest, "a manifest", MANIFEST_BYTES)
    if not {"status", "config", "model"} <= said.keys():
        raise UserError(Fault("not a manifest", str(manifest), expected=_RIGHT))
    if said["status"] != "done":
        raise UserError(Fault("this run did not finish", str(manifest), said["status"], 'status "done"'))
    config = _config(said["config"], f"{manifest}: config", faults)
    model, weights = _texts(said, "model", manifest, faults), _texts(said, "weights", manifest, faults)
    for key in sorted({"name", "source", "fingerprint"} - model.keys()):
        faults.add("missing", f"{manifest}: model.{key}", expected=_RIGHT)
    for name, digest in weights.items():
        if not _DIGEST.fullmatch(digest):
            faults.add("not a sha256", f"{manifest}: weights: {name}", digest, "64 hexadecimal digits")
        if not _leads_inside(name):
            faults.add("leads out of the run's folder", f"{manifest}: weights", name, "the path of a file inside it")
    faults.raise_if_any()
    assert config is not None
    return Finished(folder, config, model["name"], model["source"], model["fingerprint"], weights)


def _config(source: Any, where: str, faults: Faults) -> RunConfig | None:
    if not isinstance(source, dict):
        faults.add("not a config", where, source, _RIGHT)
        return None
    try:
        return load_config(source)
    except UserError as error:
        faults.extend(replace(fault, where=f"{where}.{fault.where}") for fault in error.faults)
        return None


def _texts(said: Mapping[str, Any], key: str, manifest: Path, faults: Faults) -> dict[str, str]:
    found = said.get(key)
    if isinstance(found, dict) and all(isinstance(value, str) for value in found.values()):
        return found
    faults.add("not a map of names to texts", f"{manifest}: {key}", found, _RIGHT)
    return {}


def _leads_inside(name: str) -> bool:
    """Plain names with slashes between, whatever the system makes of other characters."""
    return all(re.fullmatch(r"[\w.-]+", part) and part.strip(".") for part in name.split("/"))
