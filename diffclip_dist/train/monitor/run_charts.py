"""Charts of a run, small enough to be read on a phone."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# under the common kinds of colour blindness apart, and in grey
FIRST, SECOND, GREY = "#2b5f8a", "#c1440e", "#777777"
_SIZE: Final = (5.0, 3.1)
_DOTS_PER_INCH: Final = 140

Steps = Sequence[Mapping[str, Any]]


def draw_probe(probed: Steps, report: Mapping[str, Any]) -> bytes:
    """Accuracy of both probes over steps as PNG, beside what random weights and the bands alone reach.

    Args:
        probed: the logged steps with a probe.
        report: the content of ``probe.json``.
    """
    figure, axes = _chart()
    steps = [0, *(one["step"] for one in probed)]
    for name, label, colour in (("knn", "k nearest neighbours", FIRST), ("linear", "linear probe", SECOND)):
        values = [report["untrained"][name], *(one["probe"][name] for one in probed)]
        axes.plot(steps, values, "o-", color=colour, markersize=3.5, linewidth=1.6, label=label)
        axes.axhline(report["untrained"][name], color=colour, linestyle="--", linewidth=1)
        axes.axhline(report["bands_alone"][name], color=colour, linestyle=":", linewidth=1)
    axes.plot([], [], "--", color=GREY, linewidth=1, label="random weights")
    axes.plot([], [], ":", color=GREY, linewidth=1, label="bands alone")
    axes.set_ylabel("accuracy, %")
    axes.legend(fontsize=8, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return _png(figure)


def draw_loss(steps: Steps) -> bytes:
    """The loss over steps as PNG, on a logarithmic scale."""
    figure, axes = _chart()
    axes.plot([one["step"] for one in steps], [one["loss"] for one in steps], color=FIRST, linewidth=1.2)
    axes.set_yscale("log")
    axes.set_ylabel("loss")
    return _png(figure)


def draw_throughput(steps: Steps) -> bytes:
    """Windows a second and the share of time waited for samples over steps, as PNG."""
    figure, axes = _chart()
    numbers = [one["step"] for one in steps]
    axes.plot(numbers, [one["samples_per_s"] for one in steps], color=FIRST, linewidth=1.0, label="samples/s")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("samples/s", color=FIRST)
    waits = axes.twinx()
    waits.plot(numbers, [100.0 * one["data_wait_fraction"] for one in steps], color=SECOND, linewidth=1.0)
    waits.set_ylim(0, 100)
    waits.set_ylabel("data wait, %", color=SECOND)
    waits.spines["top"].set_visible(False)
    return _png(figure)


def _chart() -> tuple[Figure, Any]:
    figure = Figure(figsize=_SIZE, dpi=_DOTS_PER_INCH, facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()
