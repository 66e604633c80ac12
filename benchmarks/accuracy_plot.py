"""Overall accuracy over shots as a picture, a panel a scene, with 95 % intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from report import Row

MOST_ACROSS: Final = 3  # panels
# What is drawn: the best of the classical rows would hide which, so all that lead somewhere are there
DRAWN: Final = {
    "default, kernel head": "#1b7837",
    "default, kernel head, no names": "#a6dba0",
    "default, cosine head": "#7fbf7b",
    "published, cosine head": "#762a83",
    "random weights, kernel head": "#4393c3",
    "random weights, cosine head": "#92c5de",
    "LDA, all modalities": "#b35806",
    "SVM, all modalities": "#f1a340",
    "random forest, all modalities": "#999999",
    "1-NN, all modalities": "#cccccc",
}


def draw(file: Path, rows: Sequence[Row]) -> None:
    """Writes the picture as PNG."""
    scenes = list(dict.fromkeys(str(row["scene"]) for row in rows))
    across, down = min(len(scenes), MOST_ACROSS), -(-len(scenes) // MOST_ACROSS)
    figure = Figure(
        figsize=(max(5.2 * across, 9.0), 4.4 * down + 0.6), dpi=110, facecolor="white", layout="constrained"
    )
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for unused in axes[len(scenes) :]:
        unused.remove()
    for axis, scene in zip(axes, scenes, strict=False):
        here = [row for row in rows if row["scene"] == scene]
        for place, (name, colour) in enumerate(DRAWN.items()):
            mine = [row for row in here if row["classifier"] == name]
            if not mine:
                continue
            shots, mean, low, high = (
                np.array([row[key] for row in mine], dtype=np.float64)
                for key in ("shots", "oa_percent", "oa_from_percent", "oa_to_percent")
            )
            spread = shots * (1 + 0.02 * (place - len(DRAWN) / 2))
            axis.errorbar(spread, mean, yerr=(mean - low, high - mean), color=colour, marker="o", capsize=3, label=name)
        axis.set_xscale("log")
        counts = sorted({int(str(row["shots"])) for row in here})
        axis.set_xticks(counts, [str(count) for count in counts], minor=False)
        axis.set_xticks([], minor=True)
        axis.set_xlabel("labelled pixels a class")
        axis.set_ylabel("overall accuracy, %")
        axis.set_title(f"{scene} (generated)" if here[0]["generated"] else scene)
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(file, format="png")
