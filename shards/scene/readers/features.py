"""Labelled features, as a file of polygons or points holds them before they are placed on a scene's grid.

Shape letters: P points.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.errors import BadInput

Floats = npt.NDArray[np.float64]
# a class as its attribute gives it: a number, or a text
ClassValue = int | str

INSTALL = "pip install 'diffclip-dist[vectors]'"


@dataclass(frozen=True)
class VectorSource:
    """Where features lie and which of their attributes is the class.

    Attributes:
        paths: the files.
        attribute: name of the attribute or column that holds the class; None where there is but one.
        layer: name of the layer, for files of several.
        crs: coordinate reference system, for files that carry none (it takes the place of theirs).
        all_touched: whether a polygon labels every pixel that it touches.
        field: how a message names the source (``labels``).
    """

    paths: tuple[Path, ...]
    attribute: str | None
    layer: str | None
    crs: str | None
    all_touched: bool
    field: str


@dataclass(frozen=True)
class Features:
    """The features of one file, each with the name that a message gives it and its class.

    Polygons and points are in x and y of `crs`; `crs` is None for points in columns and rows (``pixels``) and for
    coordinates whose file cannot say (a table), which are then taken in the scene's own system.
    """

    names: tuple[str, ...]
    values: tuple[ClassValue, ...]
    polygons: tuple[Any, ...]
    polygon_owners: tuple[int, ...]
    points_P2: Floats
    point_owners_P: npt.NDArray[np.intp]
    crs: str | None
    pixels: bool


def chosen_attribute(names: list[str], source: VectorSource, start: str) -> str:
    """The attribute asked for, or the only one."""
    if source.attribute is not None and source.attribute in names:
        return source.attribute
    if source.attribute is None and len(names) == 1:
        return names[0]
    what = "expected" if source.attribute is None else f"{source.attribute!r} is none; expected"
    raise BadInput(f"{start}.attribute: {what} one of the file's attributes: {', '.join(names) or 'it has none'}")


def class_value(value: object, start: str, attribute: str) -> ClassValue:
    """A class as a number, where it is a whole one, or else as a text."""
    text = "" if value is None else str(value).strip()
    if text in ("", "nan", "None"):
        raise BadInput(f"{start}: attribute {attribute} is empty; give the feature a class, or leave it out")
    try:
        number = as_number(text)
    except ValueError:
        return text
    if not number.is_integer():
        raise BadInput(f"{start}: attribute {attribute} is {text}; expected a whole number or a text")
    return int(number)


def as_number(text: str) -> float:
    """A number as files write it.

    Raises:
        ValueError: it is none. ``1_000`` is one in Python's source alone.
    """
    if "_" in text:
        raise ValueError(f"{text!r} is no number")
    return float(text)


def library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BadInput(f"{name} is not installed; labels of polygons and points need it: {INSTALL}") from error
