"""Overall accuracy over shots as a picture, a panel a scene, with 95 % intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from accuracy_compare import BEST_PIXEL_ROW, OURS, RANDOM, SHIPPED
from accuracy_jobs import NAMES_ALONE
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report import Row

MOST_ACROSS: Final = 3  # panels
SETTING: Final = "random"
# Row to its colour and line; of ours the pretrained one is drawn where it was measured on every scene
DRAWN: Final = {
    OURS: ("#762a83", "-"),
    SHIPPED: ("#1b7837", "-"),
    f"{SHIPPED}, no names": ("#7fbf7b", "-"),
    RANDOM: ("#2166ac", "-"),
    f"{RANDOM}, no names": ("#92c5de", "-"),
    BEST_PIXEL_ROW: ("#000000", ":"),
    "SVM": ("#f1a340", "--"),
    "spatial stack, random forest": ("#999999", "--"),
    "MNF, nearest mean": ("#b35806", "--"),
}


def draw(file: Path, rows: Sequence[Row]) -> None:
    """Writes the picture of the rows within scenes as PNG."""
    rows = [row for row in rows if row["setting"] == SETTING]
    scenes = list(dict.fromkeys(str(row["scene"]) for row in rows))
    everywhere = [
        name for name in DRAWN if {str(row["scene"]) for row in rows if row["classifier"] == name} == {*scenes}
    ]
    if not scenes:
        return
    across, down = min(len(scenes), MOST_ACROSS), -(-len(scenes) // MOST_ACROSS)
    figure = Figure(
        figsize=(max(4.6 * across, 9.0), 3.8 * down + 0.9), dpi=110, facecolor="white", layout="constrained"
    )
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for unused in axes[len(scenes) :]:
        unused.remove()
    for axis, scene in zip(axes, scenes, strict=False):
        _draw_scene(axis, scene, [row for row in rows if row["scene"] == scene], everywhere)
    lines = {name: line for axis in figure.axes for line, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(file, format="png")


def _draw_scene(axis: Axes, scene: str, rows: Sequence[Row], names: Sequence[str]) -> None:
    counts = sorted({int(str(row["shots"])) for row in rows} - {0})
    for place, name in enumerate(names):
        mine = [row for row in rows if row["classifier"] == name]
        shots, mean, low, high = (
            np.array([row[key] for row in mine], dtype=np.float64)
            for key in ("shots", "oa_percent", "oa_from_percent", "oa_to_percent")
        )
        colour, line = DRAWN[name]
        spread = shots * (1 + 0.02 * (place - len(names) / 2))
        axis.errorbar(
            spread, mean, yerr=(mean - low, high - mean), color=colour, linestyle=line, marker="o", markersize=4,
            capsize=2, label=name,
        )  # fmt: skip
    for row in rows:
        if row["classifier"] == NAMES_ALONE:
            axis.axhline(float(str(row["oa_percent"])), color="#c51b7d", linewidth=1, label=f"{NAMES_ALONE}, 0 shots")
    axis.set_xscale("log")
    axis.set_xticks(counts, [str(count) for count in counts], minor=False)
    axis.set_xticks([], minor=True)
    axis.set_xlabel("labelled pixels a class")
    axis.set_ylabel("overall accuracy, %")
    axis.set_title(f"{scene} (generated)" if rows[0]["generated"] else scene)
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
