"""Class maps as pictures with a legend."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from diffclip_dist.fewshot.classifier import MappedClass
from diffclip_dist.mapping.predict import ClassMap, count_classes
from shards.preview.class_colours import rgb

UNMAPPED_COLOUR = "#f0f0f0"
GENERATED_MARK = "GENERATED SCENE: not a real place"
LONGEST_SIDE_INCHES = 8.0
LEGEND_INCHES = 2.9
DOTS_PER_INCH = 150


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
    scale = LONGEST_SIDE_INCHES / max(height, width)
    map_inches = (max(width * scale, 1.2), max(height * scale, 1.2))
    head = 0.95 if generated else 0.7
    tall = max(map_inches[1], 0.3 + 0.235 * (len(classes) + 1))
    figure = Figure(
        figsize=(max(map_inches[0] + LEGEND_INCHES, 5.0), tall + head), dpi=DOTS_PER_INCH, facecolor="white"
    )
    total_width, total_height = figure.get_size_inches()
    axes = figure.add_axes(
        (
            0.15 / total_width,
            (tall - map_inches[1] + 0.1) / total_height,
            map_inches[0] / total_width,
            map_inches[1] / total_height,
        )
    )
    axes.imshow(_coloured(class_map, classes), interpolation="nearest", aspect="equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_edgecolor("#999999")
    left = 0.15 / total_width
    figure.text(left, 1 - 0.12 / total_height, title, fontsize=12, fontweight="bold", va="top")
    figure.text(left, 1 - 0.38 / total_height, subtitle, fontsize=8.5, color="#444444", va="top")
    if generated:
        figure.text(
            left, 1 - 0.63 / total_height, GENERATED_MARK, fontsize=8.5, fontweight="bold", va="top", color="white",
            bbox={"facecolor": "#b3261e", "edgecolor": "none", "pad": 2.5},
        )  # fmt: skip
    figure.legend(
        handles=_legend(pixels, classes, empty),
        loc="upper left",
        bbox_to_anchor=((map_inches[0] + 0.3) / total_width, (tall + 0.17) / total_height),
        frameon=False,
        fontsize=8.5,
        borderpad=0.0,
        handlelength=1.2,
        handleheight=1.1,
    )
    partial = file.with_name(f".{file.name}.partial")
    try:
        figure.savefig(partial, format="png")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


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
