"""A study as one page of HTML that needs no other file and no network."""

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from diffclip_dist.feature_extraction.bands_only import window_side
from diffclip_dist.fewshot.metrics import Summary
from diffclip_dist.study.fit_study import FitStudy
from diffclip_dist.study.kept_classifier import KeptClassifier
from diffclip_dist.study.study import Study

TEMPLATE = "page.html"
FIGURES = {"oa": "Overall accuracy, %", "aa": "Average accuracy, %", "kappa": "Cohen's kappa"}


def write_page(file: Path, study: Study | FitStudy, maps: Path) -> None:
    """Writes the page.

    Args:
        file: where to.
        study: the study.
        maps: folder of the study's map pictures, as `publish` names them.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("diffclip_dist.study", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["figure"] = format_mean
    template = environment.get_template(TEMPLATE)
    text = template.render(
        study=study,
        record=study.scene.record,
        window=window_side(study.encoder.encoder),
        figures=FIGURES,
        kept=study.kept,
        confusions={kept.name: _confusion(study, kept) for kept in study.kept},
        curve=_inline(_curve(study)) if isinstance(study, Study) else None,
        reference=_inline((maps / "reference.png").read_bytes()),
        maps={
            kept.name: _inline((maps / f"{kept.file_key}.png").read_bytes())
            for kept in study.kept
            if kept.class_map is not None
        },
    )
    file.write_text(text, encoding="utf-8")


def format_mean(summary: Summary, digits: int = 1) -> str:
    """``52.1 [50.0, 54.2]``: mean and 95 % interval; an en dash where there is none."""
    if summary.mean is None:
        return "\N{EN DASH}"
    if summary.ci95 is None:
        return f"{summary.mean:.{digits}f}"
    low, high = summary.ci95
    return f"{summary.mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _inline(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _confusion(study: Study | FitStudy, kept: KeptClassifier) -> list[dict[str, Any]]:
    """A row for each class: name, tested pixels, and the share in percent that went to each class."""
    rows = []
    for known, counts in zip(study.classes, kept.confusion, strict=True):
        shares = (100.0 * counts / max(int(counts.sum()), 1)).tolist()
        rows.append({"name": known.name, "pixels": int(counts.sum()), "shares": shares})
    return rows


def _curve(study: Study) -> bytes:
    """Accuracy over shots: a dot a seed, the mean with its 95 % interval."""
    figure = Figure(figsize=(7.5, 3.1), dpi=140, facecolor="white", layout="constrained")
    axes = figure.subplots(1, 2)
    places = np.arange(len(study.task.shots))
    for axis, name, colour in zip(axes, ("oa", "aa"), ("#2b5f8a", "#a65428"), strict=True):
        summaries = [study.summaries(shots)[name] for shots in study.task.shots]
        for place, summary in zip(places, summaries, strict=True):
            axis.plot([place] * len(summary.per_seed), summary.per_seed, "o", color=colour, alpha=0.25, markersize=4)
        means = np.array([summary.mean for summary in summaries], dtype=np.float64)
        ends = np.array([summary.ci95 or (summary.mean, summary.mean) for summary in summaries], dtype=np.float64)
        axis.errorbar(places, means, yerr=np.abs(ends.T - means), color=colour, marker="o", capsize=4, linewidth=1.6)
        axis.set_xticks(places, [str(shots) for shots in study.task.shots])
        axis.set_xlim(-0.5, len(places) - 0.5)
        axis.set_xlabel("labelled pixels a class")
        axis.set_title(FIGURES[name], fontsize=10)
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()
