"""Tables of labelled points (.csv).

Shape letters: P points.
"""

import csv
from pathlib import Path

import numpy as np

from shards.errors import BadInput
from shards.scene.readers.features import ClassValue, Features, VectorSource, as_number, chosen_attribute, class_value

X_NAMES, Y_NAMES = ("x", "easting"), ("y", "northing")
LONGITUDE_NAMES, LATITUDE_NAMES = ("lon", "longitude", "lng"), ("lat", "latitude")
ROW_NAMES, COL_NAMES = ("row",), ("col", "column")


def read_table(path: Path, source: VectorSource) -> Features:
    """A table of points, its columns named in the first line: x, y (or lon, lat; or row, col) and the class.

    Rows and columns count from 0. Without `crs`, x and y are in the scene's own system, lon and lat in EPSG:4326.
    """
    start = f"{path}: {source.field}"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{start}: cannot be read: {error}") from error
    lines = text.splitlines()
    head = lines[0] if lines else ""
    separator = max(",;\t", key=head.count)
    table = csv.reader(lines, delimiter=separator)
    columns = [name.strip() for name in next(table, [])]
    across, down, crs, pixels = _place_columns(columns, source, start)
    attribute = chosen_attribute([name for name in columns if name not in (across, down)], source, start)
    places = [columns.index(name) for name in (across, down, attribute)]
    names: list[str] = []
    values: list[ClassValue] = []
    points: list[tuple[float, float]] = []
    for cells in table:
        if not any(cell.strip() for cell in cells):
            continue
        name = f"line {table.line_num}"
        if len(cells) != len(columns):
            raise BadInput(f"{start}: {name}: {len(cells)} values, expected {len(columns)}: {separator.join(columns)}")
        x, y, value = (cells[place].strip() for place in places)
        if separator == ";":  # where a decimal comma is written, columns are kept apart by semicolons
            x, y = x.replace(",", "."), y.replace(",", ".")
        try:
            point = (as_number(x), as_number(y))
        except ValueError as error:
            raise BadInput(f"{start}: {name}: {across} {x!r}, {down} {y!r}; expected two numbers") from error
        if not np.isfinite(point).all() or (pixels and not (point[0].is_integer() and point[1].is_integer())):
            kind = "whole" if pixels else "finite"
            raise BadInput(f"{start}: {name}: {across} {x}, {down} {y}; expected {kind} numbers")
        names.append(name)
        values.append(class_value(value, f"{start}: {name}", attribute))
        points.append(point)
    points_P2 = np.array(points, np.float64).reshape(-1, 2)
    owners = np.arange(len(points), dtype=np.intp)
    return Features(tuple(names), tuple(values), (), (), points_P2, owners, crs, pixels)


def _place_columns(columns: list[str], source: VectorSource, start: str) -> tuple[str, str, str | None, bool]:
    """Names of the columns that say where a point lies, their system, and whether they count pixels."""
    by_name = {name.lower(): name for name in columns}
    for across, down, crs, pixels in (
        (X_NAMES, Y_NAMES, source.crs, False),
        (LONGITUDE_NAMES, LATITUDE_NAMES, source.crs or "EPSG:4326", False),
        (COL_NAMES, ROW_NAMES, None, True),
    ):
        first = next((by_name[name] for name in across if name in by_name), None)
        second = next((by_name[name] for name in down if name in by_name), None)
        if first is not None and second is not None:
            return first, second, crs, pixels
    raise BadInput(
        f"{start}: expected a first line with the columns x and y, lon and lat, or row and col; it has: "
        f"{', '.join(columns) or 'none'}"
    )
