"""A study as one page of HTML that needs no other file and no network."""

import base64
from pathlib import Path
from typing import Any

import jinja2

from diffclip_dist.feature_extraction.bands_only import window_side
from diffclip_dist.fewshot.metrics import Summary
from diffclip_dist.mapping.map_files import describe_calibration
from diffclip_dist.study.figure_pictures import draw_curve, draw_reliability
from diffclip_dist.study.fit_study import FitStudy
from diffclip_dist.study.kept_classifier import KeptClassifier
from diffclip_dist.study.scene_pictures import RIGHT_COLOUR, UNTESTED_COLOUR, WRONG_COLOUR
from diffclip_dist.study.study import Study

TEMPLATE = "page.html"
REFERENCE_FILE = "reference.png"
# Pictures of each classifier: what it learned from, its map, and where it was right
SHOWN = ("labels", "map", "errors")
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
    kept = study.kept
    calibrated = [one for one in kept if one.calibration is not None]
    text = template.render(
        study=study,
        record=study.scene.record,
        window=window_side(study.encoder.encoder),
        figures=FIGURES,
        kept=kept,
        tests="folds" if isinstance(study, FitStudy) else "seeds",
        confusions={one.name: _confusion(study, one) for one in kept},
        curve=_inline(draw_curve(kept, FIGURES)) if isinstance(study, Study) else None,
        colours={"right": RIGHT_COLOUR, "wrong": WRONG_COLOUR, "untested": UNTESTED_COLOUR},
        calibrated=calibrated,
        describe_calibration=describe_calibration,
        reliability=_inline(draw_reliability(calibrated)) if calibrated else None,
        reference=_inline((maps / REFERENCE_FILE).read_bytes()),
        pictures={
            one.name: {
                shows: _inline((maps / picture_name(one, shows)).read_bytes())
                for shows in SHOWN
                if shows != "map" or one.class_map is not None
            }
            for one in kept
        },
    )
    file.write_text(text, encoding="utf-8")


def picture_name(kept: KeptClassifier, shows: str) -> str:
    """Name of a picture of a classifier; ``map`` is drawn beside its GeoTIFF."""
    return f"{kept.file_key}.png" if shows == "map" else f"{kept.file_key}-{shows}.png"


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
