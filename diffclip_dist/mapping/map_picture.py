"""Class maps as pictures with a legend."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.patches import Patch

from diffclip_dist.fewshot.classifier import MappedClass
from diffclip_dist.mapping.picture_layout import save_picture
from diffclip_dist.mapping.predict import ClassMap, count_classes
from shards.preview.class_colours import rgb

UNMAPPED_COLOUR = "#f0f0f0"


def render_map(
    file: Path,
    class_map: ClassMap,
    classes: Sequence[MappedClass],
    title: str,
    subtitle: str,
    generated: bool,
    empty: str = "no data",
    pixels: Mapping[int, int] | None = None,
) -> None:
    """Draws a map as PNG, under another name until it is whole.

    Args:
        file: the PNG; its folder must exist.
        class_map: class ids (row, col), 0 where there is none.
        classes: what the legend names, each with its share of the mapped pixels.
        title: what is shown.
        subtitle: by which means.
        generated: marks the picture as one of a made-up scene.
        empty: what the legend calls pixels without a class.
        pixels: how many each class id has, where the map is thinned; None counts those of the map.
    """
    pixels = count_classes(class_map) if pixels is None else pixels
    height, width = class_map.shape
    coloured = _coloured(class_map, classes)
    save_picture(
        file,
        (height, width),
        lambda axes: axes.imshow(coloured, interpolation="nearest", aspect="equal"),
        _legend(pixels, classes, empty),
        title,
        subtitle,
        generated,
    )


def _coloured(class_map: ClassMap, classes: Sequence[MappedClass]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    table = np.zeros((max(one.class_id for one in classes) + 1, 3), dtype=np.uint8)
    table[0] = rgb(UNMAPPED_COLOUR)
    for one in classes:
        table[one.class_id] = rgb(one.colour)
    return table[class_map]


def _legend(pixels: Mapping[int, int], classes: Sequence[MappedClass], empty: str) -> list[Patch]:
    mapped = max(sum(count for class_id, count in pixels.items() if class_id), 1)
    entries = [
        Patch(
            facecolor=one.colour,
            edgecolor="#666666",
            linewidth=0.4,
            label=f"{one.name}  {pixels.get(one.class_id, 0) / mapped:.1%}",
        )
        for one in classes
    ]
    if pixels.get(0):
        entries.append(Patch(facecolor=UNMAPPED_COLOUR, edgecolor="#666666", linewidth=0.4, label=empty))
    return entries
