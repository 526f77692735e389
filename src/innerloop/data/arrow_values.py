"""What the cells of an Arrow table mean, where its schema says more than they do.

as_meant       records with the names of class labels, and numbers in the shortest text that gives what is stored
is_dataset     whether something is a Dataset in memory; dataset_rows: its rows
features_of    what `datasets` wrote into a schema about its columns
Written        a number that prints as it was written
"""

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeGuard, cast

if TYPE_CHECKING:
    from datasets import Dataset

PICTURE = {"bytes", "path"}  # what Arrow holds of one
EXACT = 2**53  # whole numbers below are floats of their own
Convert = Callable[[Any], Any]


class Written(float):
    """A float that prints as it stood in its file: 7.50 stays 7.50."""

    text: str

    def __new__(cls, text: str) -> "Written":
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __repr__(self) -> str:
        return self.text

    def __reduce__(self) -> Any:
        return Written, (self.text,)


def features_of(schema: Any) -> Mapping[str, Any]:
    """Column name -> what `datasets` calls its feature; empty where it wrote none."""
    with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return features if isinstance(features, dict) else {}
    return {}


def is_dataset(data: object) -> "TypeGuard[Dataset]":
    """Nobody has one who didn't import `datasets`, which takes a while."""
    if "datasets" not in sys.modules:
        return False
    import datasets

    return isinstance(data, datasets.Dataset)


def dataset_rows(data: "Dataset") -> list[dict[str, Any]]:
    """Every row as Arrow stores it, whatever format is set: pictures stay bytes, class labels become their names."""
    records: list[dict[str, Any]] = []
    for table in data.with_format("arrow").iter(batch_size=1000):
        records += cast(Any, table).to_pylist()
    return as_meant(records, data.features.arrow_schema, cast(Any, data.features.to_dict()))


def as_meant(records: list[dict[str, Any]], schema: Any, features: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records, changed in place; what can't be told from the schema stays as it is.

    A class label becomes its name. A float32 becomes the float64 of its shortest text (0.8, not 0.800000011920929), a
    decimal prints as it is stored, an object lacks what is null in it. Where all numbers of a float column are whole,
    they become whole numbers: a column with an empty cell had to become one of floats.
    """
    for column in schema:
        convert = _converter(column.type, features.get(column.name))
        if convert is not None:
            for record in records:
                record[column.name] = _kept_none(convert, record[column.name])
        if _is_float(column.type):
            values = [record[column.name] for record in records]
            if all(value is None or (value.is_integer() and abs(value) < EXACT) for value in values):
                for record, value in zip(records, values, strict=True):
                    record[column.name] = None if value is None else int(value)
    return records


def _is_float(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_floating(kind)


def _kept_none(convert: Convert, value: Any) -> Any:
    return None if value is None else convert(value)


def _converter(kind: Any, feature: Any) -> Convert | None:
    """None where a value stays as Arrow gives it."""
    import pyarrow.types as types

    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    if isinstance(names, list) and types.is_integer(kind):
        return lambda value: names[value] if 0 <= value < len(names) else None
    if types.is_float16(kind) or types.is_float32(kind):
        return _shortest(kind)
    if types.is_decimal(kind):
        return lambda value: Written(str(value)) if isinstance(value, Decimal) and value.is_finite() else value
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = feature.get("feature") if isinstance(feature, dict) else feature
        convert = _converter(kind.value_type, inner[0] if isinstance(inner, list) and inner else inner)
        return None if convert is None else lambda value: [_kept_none(convert, item) for item in value]
    return _fields(kind, feature) if types.is_struct(kind) else None


def _fields(kind: Any, feature: Any) -> Convert:
    """An object without the keys that it lacks: a struct has those of all rows, null where a row has none."""
    told = feature if isinstance(feature, dict) else {}
    own = {field.name: _converter(field.type, told.get(field.name)) for field in kind}
    if set(own) == PICTURE:
        return lambda value: value

    def convert(value: dict[str, Any]) -> dict[str, Any]:
        kept = ((name, item, own.get(name)) for name, item in value.items() if item is not None)
        return {name: item if change is None else change(item) for name, item, change in kept}

    return convert


def _shortest(kind: Any) -> Convert:
    import numpy as np

    type_ = kind.to_pandas_dtype()
    return lambda value: float(str(np.dtype(type_).type(value)))
