"""Strict YAML -> the objects of the layers below; everything that is wrong comes in one error.

load_config     a file or a mapping, and --set on top -> RunConfig
sound_part      the same as far as it is sound
REFUSED         keys that people look for and that there are none of: why, and what to do
RunConfig, KEYS from the schema
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from innerloop.config.defaults import STAND_INS, defaults, method_of, within
from innerloop.config.document import Document, KeyPath
from innerloop.config.other_names import hint
from innerloop.config.rules import conflicts, lora_sibling, unread
from innerloop.config.schema import (
    ABSENT,
    BROKEN_METHODS,
    EVERYTHING,
    FIELDS,
    KEYS,
    NULLABLE,
    VERIFIER_NAMES,
    LoraSection,
    RunConfig,
    get,
    nested,
)
from innerloop.errors import Fault, Faults, UserError, did_you_mean
from innerloop.learning.methods import METHODS

__all__ = [
    "KEYS",
    "Part",
    "RunConfig",
    "load_config",
    "sound_part",
]

# How people abbreviate LoRA options, with or without "lora_" in front.
_LORA_WORDS = {option.removeprefix("lora_"): option for option in LoraSection.model_fields} | {"rank": "r"}


class Part(NamedTuple):
    """config: stand-ins in place of what is wrong; sound: whether dotted keys are free of faults and contradictions."""

    config: RunConfig
    sound: Callable[..., bool]


def load_config(source: Path | str | Mapping[str, Any], sets: Sequence[str] = ()) -> RunConfig:
    """Read, fill in defaults, check.

    >>> config = load_config("run.yaml", ["outer.steps=20"])
    >>> config.outer.steps
    20

    source   a YAML file, or the same as a mapping
    sets     `section.key=value`, applied in order
    Raises UserError with everything that is wrong: where it was set, the value, and what would be right.
    """
    faults = Faults()
    part = sound_part(source, sets, faults)
    faults.raise_if_any()
    assert part is not None
    return part.config


def sound_part(source: Path | str | Mapping[str, Any], sets: Sequence[str], faults: Faults) -> Part | None:
    """The config as far as it is sound, so that its data can be looked at too; None where nothing of it is.

    Adds what is wrong with it. Raises UserError for a source that can't be read at all.
    """
    document = Document.read(_source(source), faults)
    for text in sets:
        document.set(text, faults)
    return _Check(document, faults).part()


def _source(given: Any) -> Path | Mapping[str, Any]:
    """Raises UserError for what is neither the path of a file nor a mapping."""
    if isinstance(given, str | Path):
        return Path(given)
    if isinstance(given, Mapping):
        return given
    raise UserError(Fault("not a config", "config", given, "the path of a YAML file, or a mapping like one"))


class _Check:
    """One look at a document. A key in `faulty` has its fault already, and is left out of what follows."""

    def __init__(self, document: Document, faults: Faults) -> None:
        self.document, self.faults = document, faults
        self.tree = document.tree
        self.given = {key: value for key in KEYS if (value := get(self.tree, key)) is not ABSENT}
        self.faulty: set[str] = set()

    def part(self) -> Part | None:
        for key in EVERYTHING:
            if key not in NULLABLE and get(self.tree, key) is None:
                self.reject(key, "no value", f"{_takes(key, None)}; or leave it out")
        if fault := BROKEN_METHODS.get(str(get(self.tree, "method.name"))):
            self.faults.append(fault)
            self.faulty.add("method.name")
        self._unread()
        config = self._typed()
        doubtful = self._conflicts()
        if config and not self.faults:
            self._made(config)
        config = config or self._stand_in()
        self.faulty |= doubtful
        return Part(config, self._is_sound) if config else None

    def add(self, key: str, problem: str, expected: str) -> None:
        value = get(self.tree, key)
        shown = {} if value is ABSENT else {"value": value}
        self.faults.add(problem, self.document.where(tuple(key.split("."))), expected=expected, **shown)

    def reject(self, key: str, problem: str, expected: str) -> None:
        self.add(key, problem, expected)
        self.faulty.add(key)

    def _unread(self) -> None:
        for objection in unread(self._values()):
            key = objection.keys[0]
            if get(self.tree, key) is not ABSENT and self._is_sound(*objection.keys):
                self.reject(key, objection.problem, objection.expected)

    def _typed(self) -> RunConfig | None:
        try:
            return RunConfig.model_validate(_filled(self.tree, defaults(self.given)))
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False)
        for problem in problems:
            path = tuple(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                self._unknown(path, problem["input"])
                continue
            key = next(known for n in range(len(path), 0, -1) if (known := ".".join(path[:n])) in EVERYTHING)
            value = get(self.tree, key)
            if not self._is_sound(key):
                continue
            if value is not ABSENT:
                self.reject(key, "not a value that this key takes", _takes(key, value))
            elif problem["type"] == "missing":  # else it is a default that follows from a faulty key
                self.reject(key, "missing", _takes(key, None))
        return None

    def _made(self, config: RunConfig) -> None:
        """A rule may refuse values that no other key has a say in."""
        try:
            config.method.build()
        except ValueError as error:
            self.reject("method", str(error), f"other options of {config.method.name}")

    def _unknown(self, path: KeyPath, value: Any) -> None:
        right = _lora_key(path)
        if right is None:
            problem, right = REFUSED.get(".".join(path)) or ("unknown key", _suggestion(path, value))
            self.faults.add(problem, self.document.where(path), value, right)
            return
        name = method_of(self.given)
        method = lora_sibling(name or STAND_INS["method.name"])
        problem = "LoRA options belong to the method, not to the model"
        if name and name != method:
            problem += f'; "{name}" trains all parameters and reads none'
        self.faults.add(problem, self.document.where(path), value, f"{right}, with {method} as method.name")

    def _conflicts(self) -> set[str]:
        """What each contradiction is about first."""
        about: set[str] = set()
        for objection in conflicts(self._values()):
            given = (key for key in objection.keys if get(self.tree, key) is not ABSENT)
            if self._is_sound(*objection.keys):
                self.add(next(given, objection.keys[0]), objection.problem, objection.expected)
                about.add(objection.keys[0])
        return about

    def _stand_in(self) -> RunConfig | None:
        """Something in the place of what is wrong."""
        values = {**STAND_INS, **self._values()}
        try:
            return RunConfig.model_validate(nested(values))
        except ValidationError:
            return None

    def _values(self) -> dict[str, Any]:
        """The sound keys, and defaults for the others; no method.name where it names none."""
        sound = {key: value for key, value in self.given.items() if self._is_sound(key)}
        if method_of(sound) is None:
            sound.pop("method.name", None)
        return {**defaults(sound), **sound}

    def _is_sound(self, *keys: str) -> bool:
        return not any(within(key, faulty) for key in keys for faulty in self.faulty)


# Keys that people look for here, and why there is none.
REFUSED = {
    "method.lora.modules_to_save": (
        "each task would have whole embeddings or output layers of its own, beside its LoRA",
        "leave it out; or a method that trains all parameters",
    )
}


def _filled(tree: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    filled = _copied(tree)
    for key, default in defaults.items():
        *sections, last = key.split(".")
        section: Any = filled
        for name in sections:
            section = section.setdefault(name, {}) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section.setdefault(last, default)
    return filled


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, dict) else value for key, value in tree.items()}


def _takes(key: str, value: Any) -> str:
    """In words, what a key takes."""
    if key == "method.name":
        return did_you_mean(str(value), METHODS)
    if key == "tasks.verifier":
        return did_you_mean(str(value), VERIFIER_NAMES)
    if key in FIELDS:
        return FIELDS[key].description or ""
    inside = [name.removeprefix(f"{key}.") for name in KEYS if name.startswith(f"{key}.")]
    return f"a section with {', '.join(inside)}"


def _lora_key(path: KeyPath) -> str | None:
    """Where a LoRA option belongs that was set in the model section."""
    if path == ("model", "lora"):
        return "method.lora"
    word = path[-1].removeprefix("lora_")
    return f"method.lora.{_LORA_WORDS[word]}" if path[:-1] == ("model",) and word in _LORA_WORDS else None


def _suggestion(path: KeyPath, value: Any) -> str:
    """The same key in another section, our word for a neighbour's, or the nearest one in this section."""
    section, word = ".".join(path[:-1]), path[-1]
    if "." in word:
        return "sections inside sections, not a key with dots"
    elsewhere = [key for key in EVERYTHING if key.rsplit(".", 1)[-1] == word]
    near = [key for key in elsewhere if key.startswith(f"{path[0]}.")] or elsewhere
    if near:
        return "did you mean " + " or ".join(f'"{key}"' for key in near) + "?"
    if ours := hint(word, value):
        return ours
    siblings = [key.rsplit(".", 1)[-1] for key in EVERYTHING if key.rpartition(".")[0] == section]
    return did_you_mean(word, siblings)
