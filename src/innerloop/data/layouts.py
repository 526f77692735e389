"""How files and folders hold a data set: its splits, and the shards of one file.

Place          the task that a source's records belong to, and on which side of it
place_of       of one source, in the folder that is read
split_folders  the sources of a data set that a folder holds split by split
layout_warnings  what may be meant otherwise
looks_split    whether a task's name is that of a split
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

SPLITS_FILE = "dataset_dict.json"  # lists the subfolders of a saved DatasetDict, which are found without it
VALIDATION = ("validation", "valid", "val", "dev")
SPLITS = ("train", "test", *VALIDATION)
SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")

Side = Literal["pool", "test", "unread"]


class Place(NamedTuple):
    """origin: the same for sources that are parts of one; shards: how many such parts there should be."""

    task: str
    origin: str
    side: Side = "pool"
    shards: int = 1


def place_of(source: Path, root: Path) -> Place:
    """A file is a task, the shards of one are one, and a data set in splits is one.

    root  the folder that is read, or the source itself
    """
    name, shards = _name(source)
    if source != root and _is_split(source, root):
        folder = source.parent
        return Place(folder.resolve().name, str(folder), _side(name, _names(folder)), shards)
    shown = source.resolve().name if source.is_dir() else name
    return Place(shown, str(source.with_name(name + source.suffix)) if shards > 1 else str(source), shards=shards)


def split_folders(folder: Path, readable: Callable[[Path], bool]) -> list[Path]:
    """The sources of a saved DatasetDict, or of a folder in which every file that can be read is a split."""
    try:
        found = sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".") and readable(entry))
    except OSError:
        return []
    named = all(_name(entry)[0] in SPLITS for entry in found)
    return found if named or (folder / SPLITS_FILE).is_file() else []


def layout_warnings(places: Mapping[Path, Place], *, named_by_column: bool) -> list[str]:
    """What may be meant otherwise: tasks that are called like splits, splits that aren't read, shards that lack."""
    said: list[str] = []
    splits = sorted({place.task for place in places.values() if looks_split(place.task)})
    if splits and not named_by_column:
        said.append(
            f"tasks are called as splits are ({', '.join(splits)}): each is a task of its own, and trained on unless "
            "tasks.held_out or tasks.validation names it; in a folder of the task's name they would be its splits"
        )
    if unread := [path.name for path, place in places.items() if place.side == "unread"]:
        said.append(
            f"validation splits beside a test split are not read: {', '.join(unread[:3])} ({len(unread)} in all)"
        )
    parts = Counter(place for place in places.values() if place.shards > 1)
    lacking = [f"{count} of {place.shards} of {place.task}" for place, count in parts.items() if count < place.shards]
    return said + ([f"shards are missing: {', '.join(lacking[:3])} are here"] if lacking else [])


def looks_split(name: str) -> bool:
    return name.lower() in SPLITS


def _is_split(source: Path, root: Path) -> bool:
    """In a saved DatasetDict whose parts are called like splits, or in a folder of such files within the root."""
    if (source.parent / SPLITS_FILE).is_file():
        return any(looks_split(name) for name in _names(source.parent))
    return source.parent != root


def _names(folder: Path) -> set[str]:
    return {_name(entry)[0] for entry in folder.iterdir() if not entry.name.startswith(".")}


def _name(source: Path) -> tuple[str, int]:
    """Without suffix and shard, and how many shards there are."""
    stem = source.name if source.is_dir() else source.stem
    shard = SHARD.fullmatch(stem)
    return (shard["name"], int(shard["count"])) if shard else (stem, 1)


def _side(split: str, splits: Iterable[str]) -> Side:
    """Without a test split, a validation split takes its place; beside one, nothing here reads it."""
    if split == "test" or (split in VALIDATION and "test" not in splits):
        return "test"
    return "unread" if split in VALIDATION else "pool"
