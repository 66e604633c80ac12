"""The layout of pictures of a scene: title, subtitle, the scene, and a legend beside it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.figure import Figure

from shards.archive.publish import publish_file

GENERATED_MARK = "GENERATED SCENE: not a real place"
LONGEST_SIDE_INCHES = 8.0
LEGEND_INCHES = 2.9
DOTS_PER_INCH = 150


def save_picture(
    file: Path,
    shape: tuple[int, int],
    draw: Callable[[Any], None],
    legend: Sequence[Artist],
    title: str,
    subtitle: str,
    generated: bool,
) -> None:
    """Draws a picture of a scene as PNG, under another name until it is whole.

    Args:
        file: the PNG; its folder must exist.
        shape: rows and columns of what is drawn.
        draw: draws the scene into matplotlib's axes.
        legend: what the legend names.
        title: what is shown.
        subtitle: by which means.
        generated: marks the picture as one of a made-up scene.
    """
    height, width = shape
    scale = LONGEST_SIDE_INCHES / max(height, width)
    map_inches = (max(width * scale, 1.2), max(height * scale, 1.2))
    head = 0.95 if generated else 0.7
    tall = max(map_inches[1], 0.3 + 0.235 * len(legend))
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
    draw(axes)
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
        handles=list(legend),
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
        publish_file(partial, file)
    finally:
        partial.unlink(missing_ok=True)
