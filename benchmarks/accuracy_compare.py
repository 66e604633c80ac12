"""Turns measurements into rows of figures: means with intervals, paired differences, choices among rows."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from accuracy_jobs import Measurement
from pixel_classifiers import PIXEL_ROWS
from report import Row, Value

from diffclip_dist.fewshot.metrics import KAPPA, PERCENT, PERCENT_DIFFERENCE, summarise

OURS: Final = "ours"
RANDOM: Final = "ours, random weights"
SHIPPED: Final = "ours, shipped encoder"
PUBLISHED: Final = "published second stage, random weights"
# Both are pixel rows: the first is chosen by looking at the test, which favours it; the second is not
BEST_PIXEL_ROW: Final = "best pixel row of this scene"
CHOSEN_PIXEL_ROW: Final = "pixel row chosen on the other scenes"
# Each row against the one that shows what it brings
COMPARED: Final = (
    *(
        (row, against)
        for row in (OURS, SHIPPED, RANDOM)
        for against in ("SVM", CHOSEN_PIXEL_ROW, BEST_PIXEL_ROW, f"{row}, no names", PUBLISHED)
    ),
    (f"{RANDOM}, shuffled names", f"{RANDOM}, no names"),
    (OURS, RANDOM),
    (SHIPPED, RANDOM),
    (f"{SHIPPED}, no names", f"{RANDOM}, no names"),
    (f"{OURS}, no names", f"{RANDOM}, no names"),
    (f"{OURS}, cosine head", f"{RANDOM}, cosine head"),
    (f"{OURS}, equal priors", OURS),
)

Place = tuple[str, str, int]  # scene, setting, shots
Metric = Callable[[Measurement], tuple[float, ...]]
METRICS: Final[Mapping[str, Metric]] = {"oa": lambda one: one.oa_percent, "aa": lambda one: one.aa_percent}


def with_choices(measurements: Sequence[Measurement], generated: Sequence[str]) -> list[Measurement]:
    """The measurements, and the pixel rows that are chosen among: by the test itself, and by the other scenes.

    Other scenes of a real one are the real ones, of a generated one the generated ones.
    """
    names = {row.name for row in PIXEL_ROWS}
    by_place: dict[Place, dict[str, Measurement]] = {}
    for one in measurements:
        if one.row in names:
            by_place.setdefault(_place(one), {})[one.row] = one
    found = list(measurements)
    for (scene, setting, shots), rows in by_place.items():
        best = max(rows.values(), key=_mean_oa)
        found.append(replace(best, row=BEST_PIXEL_ROW))
        others = [
            held
            for (other, its_setting, its_shots), held in by_place.items()
            if other != scene and (its_setting, its_shots) == (setting, shots)
            and (other in generated) == (scene in generated)
        ]  # fmt: skip
        everywhere = [name for name in rows if others and all(name in held for held in others)]
        if everywhere:
            chosen = max(everywhere, key=lambda name: statistics.fmean(_mean_oa(held[name]) for held in others))
            found.append(replace(rows[chosen], row=CHOSEN_PIXEL_ROW))
    return found


def figure_rows(measurements: Iterable[Measurement], generated: Sequence[str]) -> list[Row]:
    """A row a measurement: means and 95 % intervals over draws."""
    rows: list[Row] = []
    for one in measurements:
        row = _start("figures", one, generated) | {"sees": one.sees, "draws": len(one.oa_percent)}
        for name, unit, values, limits in (
            ("oa", "percent", one.oa_percent, PERCENT), ("aa", "percent", one.aa_percent, PERCENT),
            ("kappa", "fraction", one.kappa, KAPPA),
        ):  # fmt: skip
            found = summarise(list(values), limits)
            low, high = found.ci95 or (found.mean, found.mean)
            row |= {f"{name}_{unit}": found.mean, f"{name}_from_{unit}": low, f"{name}_to_{unit}": high}
        rows.append(row)
    return rows


def mean_rows(measurements: Iterable[Measurement], generated: Sequence[str]) -> list[Row]:
    """A row a classifier, setting and count of shots: its figures averaged over the real, or the generated, scenes."""
    held: dict[tuple[str, bool, str, int], list[Measurement]] = {}
    for one in measurements:
        held.setdefault((one.row, one.scene in generated, one.setting, one.shots), []).append(one)
    return [
        {
            "part": "means", "classifier": row, "generated": made, "setting": setting, "shots": shots,
            "scenes": len(found), "sees": " or ".join(sorted({one.sees for one in found})),
            **{f"{name}_percent": statistics.fmean(statistics.fmean(of(one)) for one in found)
               for name, of in METRICS.items()},
        }
        for (row, made, setting, shots), found in held.items()
    ]  # fmt: skip


def difference_rows(measurements: Sequence[Measurement], generated: Sequence[str]) -> list[Row]:
    """A row a comparison, scene, setting and count of shots: mean paired difference, 95 % interval over draws."""
    rows: list[Row] = []
    for name, against in COMPARED:
        for one, other in _pairs(measurements, name, against):
            row = _start("differences", one, generated) | {"against": against}
            for metric, of in METRICS.items():
                row |= _interval(metric, "draws", _gains(one, other, of))
            rows.append(row)
    return rows


def mean_difference_rows(measurements: Sequence[Measurement], generated: Sequence[str]) -> list[Row]:
    """A row a comparison, setting and count of shots, over the real or the generated scenes.

    The interval over scenes is that of the scenes' mean differences: what another scene may bring. The interval over
    draws is that of the draws' means over these scenes: what other shots may bring.
    """
    rows: list[Row] = []
    for name, against in COMPARED:
        held: dict[tuple[bool, str, int], list[tuple[Measurement, Measurement]]] = {}
        for one, other in _pairs(measurements, name, against):
            held.setdefault((one.scene in generated, one.setting, one.shots), []).append((one, other))
        for (made, setting, shots), pairs in held.items():
            row: dict[str, Value] = {
                "part": "mean differences", "classifier": name, "against": against, "generated": made,
                "setting": setting, "shots": shots, "scenes": len(pairs),
            }  # fmt: skip
            for metric, of in METRICS.items():
                gains = [_gains(one, other, of) for one, other in pairs]
                row |= _interval(metric, "scenes", [statistics.fmean(each) for each in gains])
                row |= _interval(metric, "draws", [statistics.fmean(draw) for draw in zip(*gains, strict=True)])
            rows.append(row)
    return rows


def _pairs(measurements: Sequence[Measurement], name: str, against: str) -> Iterable[tuple[Measurement, Measurement]]:
    by_place = {_place(one): one for one in measurements if one.row == against}
    for one in measurements:
        if one.row == name and _place(one) in by_place:
            yield one, by_place[_place(one)]


def _gains(one: Measurement, other: Measurement, of: Metric) -> list[float]:
    return [mine - theirs for mine, theirs in zip(of(one), of(other), strict=True)]


def _interval(metric: str, over: str, gains: list[float]) -> dict[str, Value]:
    found = summarise(gains, PERCENT_DIFFERENCE)
    low, high = found.ci95 or (found.mean, found.mean)
    gain = f"{metric}_gain"
    return {f"{gain}_percent": found.mean, f"{gain}_{over}_from_percent": low, f"{gain}_{over}_to_percent": high}


def _start(part: str, one: Measurement, generated: Sequence[str]) -> dict[str, Value]:
    return {
        "part": part, "classifier": one.row, "scene": one.scene, "generated": one.scene in generated,
        "setting": one.setting, "shots": one.shots,
    }  # fmt: skip


def _place(one: Measurement) -> Place:
    return one.scene, one.setting, one.shots


def _mean_oa(one: Measurement) -> float:
    return statistics.fmean(one.oa_percent)
