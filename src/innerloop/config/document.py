"""Strict YAML: no tags, no repeated keys, numbers are what they look like, and keys know where they were set.

Document    a mapping read from a file or handed over by Python, with --set on top
to_yaml     text that reads back as the same mapping

Scalars follow YAML 1.2: `1e-4` is a number, `yes`, `no` and `on` are text, `010` and `12:30` too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from innerloop.errors import Fault, Faults, UserError

KeyPath = tuple[str, ...]

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_BITS = 14_000  # of a whole number: Python prints no more than 4,300 digits
MAX_KEY = 200  # letters: every fault below a key says it again
MAX_VALUES = 20_000  # keys and values as written, and values with the aliases written out

_INT, _FLOAT, _BOOL, _NULL = (f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null"))
_KEY = f"at most {MAX_KEY} letters, no list and no mapping"
_SIGNED = list("-+0123456789")
_REAL = r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
_PLAIN = (  # tag, what it looks like, first characters
    (_INT, r"[-+]?(0|[1-9][0-9]{0,3999})", _SIGNED),  # longer ones are text: Python refuses to read them
    (_FLOAT, _REAL, [*_SIGNED, "."]),
    (_FLOAT, r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", ["-", "+", "."]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
)


class _Loader(yaml.SafeLoader):
    """Text to nodes. Nothing is ever constructed from a tag."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = self.nodes = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            raise ComposerError(None, None, f"tags such as {event.tag} are not read", event.start_mark)
        if self.depth > MAX_DEPTH:
            raise ComposerError(None, None, f"nested more than {MAX_DEPTH} deep", event.start_mark)
        self.nodes += 1
        if self.nodes > MAX_VALUES:
            raise ComposerError(None, None, f"more than {MAX_VALUES} keys and values", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes what _Loader would read as something else than text; writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def text(self, text: str) -> ScalarNode:
        style = None if text.isprintable() else '"'  # only this style keeps every kind of line break
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _Dumper.text)
_Loader.yaml_implicit_resolvers = _Dumper.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in _PLAIN:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)


def to_yaml(tree: Mapping[str, Any]) -> str:
    """`tree` of plain values as YAML text, keys in their order."""
    return yaml.dump(dict(tree), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


@dataclass
class Document:
    """tree: plain dicts, lists and scalars; origins: the line of each key, or the --set it came from."""

    name: str = ""
    tree: dict[str, Any] = field(default_factory=dict[str, Any])
    origins: dict[KeyPath, int | str] = field(default_factory=dict[KeyPath, int | str])

    @classmethod
    def read(cls, source: Path | Mapping[str, Any], faults: Faults) -> "Document":
        """From a file, or a mapping of plain values. Raises UserError when it can't be read on at all."""
        if isinstance(source, Mapping):
            return cls(tree=_Plain(faults).mapping(source, ()))
        document = cls(str(source))
        tree = _Builder(document, faults).read(_file_text(source))
        if tree is not None and not isinstance(tree, dict):
            raise UserError(Fault("not a mapping of keys to values", document.name, tree, "key: value"))
        document.tree = tree or {}
        return document

    def set(self, text: str, faults: Faults) -> None:
        """Apply one `--set a.b=value`: the value is YAML, missing sections on the way are made."""
        where = f"--set {text}" if len(text) <= MAX_KEY else f"--set {text[: MAX_KEY - 1]}…"
        key, equals, value = text.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or not all(map(_is_key, path)) or not all(path):
            faults.add("not a setting", where, expected="--set section.key=value")
            return
        if len(path) > MAX_DEPTH:
            faults.add(f"nested more than {MAX_DEPTH} deep", where, expected="--set section.key=value")
            return
        section = self._section(path[:-1], where)
        if section is None:
            faults.add(f"{'.'.join(path[:-1])} is a value, not a section", where)
            return
        try:
            section[path[-1]] = _Builder(Document(where), faults).read(value)
        except UserError as error:
            faults.extend(error.faults)
            return
        self.origins = {old: origin for old, origin in self.origins.items() if old[: len(path)] != path}
        self.origins[path] = where

    def _section(self, path: KeyPath, where: str) -> dict[str, Any] | None:
        """The section at `path`, made where it is missing or empty; None where a value stands in the way."""
        section = self.tree
        for depth, name in enumerate(path, 1):
            inside = section.get(name)
            if inside is None:
                inside = section[name] = {}
                self.origins.setdefault(path[:depth], where)
            if not isinstance(inside, dict):
                return None
            section = inside
        return section

    def where(self, path: KeyPath) -> str:
        """`run.yaml: a.b (line 3)` or `--set a.b=1`; a key that isn't there has the origin of its section."""
        length = next((n for n in range(len(path), 0, -1) if path[:n] in self.origins), 0)
        origin = self.origins.get(path[:length])
        if isinstance(origin, str):
            return origin if length == len(path) else f"{origin}: {'.'.join(path)}"
        return self.at(path, origin)

    def at(self, path: KeyPath, line: int | None) -> str:
        """A key, and the line it stands in."""
        key = ".".join(path) + (f" (line {line})" if line else "")
        return f"{self.name}: {key.strip()}" if self.name else key


class _Builder:
    """Nodes to plain values; notes the line of each key and counts what aliases blow up."""

    def __init__(self, document: Document, faults: Faults) -> None:
        self.document, self.faults = document, faults
        self.values = self.letters = 0

    def read(self, text: str) -> Any:
        """The value of a whole text. Raises UserError when it isn't YAML, or too large."""
        where = self.document.name
        try:
            node = yaml.compose(text, Loader=_Loader)
            return None if node is None else self.build(node, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where += f" (line {mark.line + 1})" if mark else ""
            raise UserError(Fault(f"not valid YAML: {error.problem or error.context}", where)) from None
        except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two of "\UFFFFFFFF", which is no letter
            raise UserError(Fault(f"not valid YAML: {' '.join(str(error).split())}", where)) from None

    def build(self, node: Node, path: KeyPath) -> Any:
        self.values += 1
        if self.values > MAX_VALUES:
            raise ComposerError(None, None, f"aliases make more than {MAX_VALUES} values", node.start_mark)
        if len(path) > MAX_DEPTH:  # an alias inside what it names never ends
            raise ComposerError(None, None, f"nested more than {MAX_DEPTH} deep", node.start_mark)
        if isinstance(node, SequenceNode):
            return [self.build(item, (*path, str(index))) for index, item in enumerate(node.value)]
        if isinstance(node, MappingNode):
            return self.mapping(node, path)
        self.letters += len(node.value)
        if self.letters > MAX_BYTES:
            raise ComposerError(None, None, f"aliases make more than {MAX_BYTES} letters", node.start_mark)
        return _scalar(node)

    def mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode) or not _is_key(key_node.value):
                self.faults.add("a key has to be text", self.document.at(path, line), expected=_KEY)
                continue
            key = (*path, key_node.value)
            if key_node.value in built:
                problem = f"this key is given twice, first in line {self.document.origins[key]}"
                self.faults.add(problem, self.document.at(key, line), expected="one of them")
                continue
            self.document.origins[key] = line
            built[key_node.value] = self.build(value_node, key)
        return built


def _scalar(node: Node) -> Any:
    text: str = node.value
    if node.tag == _INT:
        return int(text)
    if node.tag == _FLOAT:
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if node.tag == _BOOL:
        return text.lower() == "true"
    return None if node.tag == _NULL else text


def _is_key(text: str) -> bool:
    """Half a surrogate pair is nothing that a schema takes for a name."""
    return len(text) <= MAX_KEY and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _file_text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise UserError(Fault("not a file", str(path)))
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(Fault("there is no such file", str(path))) from None
    except (OSError, ValueError) as error:
        raise UserError(Fault(f"can't be read: {error}", str(path))) from None
    if len(content) > MAX_BYTES:
        raise UserError(Fault("too large for a config", str(path), expected=f"at most {MAX_BYTES:,} bytes"))
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wrong = content[error.start : error.end]
        raise UserError(Fault("not UTF-8", f"{path} (line {line})", wrong)) from None


class _Plain:
    """A mapping from Python as a file would give it: as deep, and of as many values, at most."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.values = 0

    def mapping(self, source: Mapping[Any, Any], path: KeyPath) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key, value in source.items():
            if isinstance(key, str) and _is_key(key):
                plain[key] = self.value(value, (*path, key))
            else:
                self.faults.add("a key has to be text", ".".join(path), key, _KEY)
        return plain

    def value(self, value: Any, path: KeyPath) -> Any:
        self.values += 1
        if self.values > MAX_VALUES:
            raise UserError(Fault(f"more than {MAX_VALUES} keys and values", ".".join(path[:3])))
        if len(path) > MAX_DEPTH:
            raise UserError(Fault(f"nested more than {MAX_DEPTH} deep", ".".join(path[:3]) + "..."))
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise UserError(Fault("a number of too many digits", ".".join(path)))
        if isinstance(value, Mapping):
            return self.mapping(value, path)
        if isinstance(value, (list, tuple)):
            return [self.value(item, (*path, str(index))) for index, item in enumerate(value)]
        return value
