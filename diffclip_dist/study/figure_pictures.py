"""Pictures of figures: accuracy over shots, and how confidence and accuracy go together."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from diffclip_dist.study.kept_classifier import KeptClassifier

# Under the common kinds of colour blindness apart, and in grey
OA_COLOUR, AA_COLOUR = "#2b5f8a", "#c1440e"
DIAGRAMS_PER_ROW = 4


def draw_curve(kept: Sequence[KeptClassifier], titles: dict[str, str]) -> bytes:
    """Accuracy over shots as PNG: a dot a seed, the mean with its 95 % interval.

    Args:
        kept: by shots.
        titles: of ``oa`` and ``aa``.
    """
    figure = Figure(figsize=(7.5, 3.1), dpi=140, facecolor="white", layout="constrained")
    axes = figure.subplots(1, 2)
    places = np.arange(len(kept))
    for axis, name, colour in zip(axes, ("oa", "aa"), (OA_COLOUR, AA_COLOUR), strict=True):
        summaries = [one.figures[name] for one in kept]
        for place, summary in zip(places, summaries, strict=True):
            axis.plot([place] * len(summary.per_seed), summary.per_seed, "o", color=colour, alpha=0.25, markersize=4)
        means = np.array([summary.mean for summary in summaries], dtype=np.float64)
        ends = np.array([summary.ci95 or (summary.mean, summary.mean) for summary in summaries], dtype=np.float64)
        axis.errorbar(places, means, yerr=np.abs(ends.T - means), color=colour, marker="o", capsize=4, linewidth=1.6)
        axis.set_xticks(places, [one.name for one in kept])
        axis.set_xlim(-0.5, len(places) - 0.5)
        axis.set_title(titles[name], fontsize=10)
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def draw_reliability(kept: Sequence[KeptClassifier]) -> bytes:
    """Reliability diagrams as PNG: accuracy over confidence in equal bins, and how many pixels each bin has.

    Args:
        kept: those that have a calibration, at least one.
    """
    across = min(len(kept), DIAGRAMS_PER_ROW)
    down = -(-len(kept) // across)
    figure = Figure(figsize=(2.6 * across, 2.9 * down), dpi=140, facecolor="white", layout="constrained")
    places = figure.subplots(down, across, squeeze=False).ravel()
    for axis in places[len(kept) :]:
        axis.set_visible(False)
    for axis, one in zip(places, kept, strict=False):
        assert one.calibration is not None
        reliability = one.calibration.reliability
        pixels = np.array(reliability.pixels, dtype=np.float64)
        filled = pixels > 0
        width = 100.0 / len(pixels)
        middles = width * (np.arange(len(pixels)) + 0.5)
        axis.bar(middles, 100 * pixels / pixels.sum(), width, color="#d9d9d9", label="share of pixels")
        axis.plot([0, 100], [0, 100], "--", color="#777777", linewidth=1, label="as sure as right")
        said, right = (
            100 * np.array(values, dtype=np.float64)[filled] / pixels[filled]
            for values in (reliability.confidence_sum, reliability.correct)
        )
        axis.plot(said, right, "o-", color=OA_COLOUR, markersize=4, linewidth=1.4, label="accuracy")
        axis.set_xlim(0, 100)
        axis.set_ylim(0, 100)
        axis.set_aspect("equal")
        axis.tick_params(labelsize=8)
        axis.set_xlabel("confidence, %", fontsize=8)
        axis.set_title(f"{one.name}: error {one.calibration.error.mean:.1f} %", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    places[0].set_ylabel("accuracy, %", fontsize=8)
    places[0].legend(fontsize=6.5, frameon=False, loc="upper left")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()
