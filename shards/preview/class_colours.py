"""A colour for each class: blue for water, green for trees; the rest take colours for the colour-blind."""

import colorsys
import math
import re
from collections.abc import Mapping

# the first row with a word of the class's name decides, so specific words come first
NATURAL = (
    (("synthetic", "artificial turf", "stadium"), "#7a5195"),
    (("water", "river", "lake", "sea", "pond", "pool"), "#2b7bba"),
    (("wetland", "marsh", "swamp", "reed"), "#5fb3a8"),
    (("snow", "ice", "cloud"), "#eaf2f8"),
    (("dry grass", "stressed grass"), "#c5c65a"),
    (("shadow",), "#33343b"),
    (("tree", "forest", "wood", "woodland", "conifer"), "#1f6b35"),
    (("shrub", "shrubland", "bush", "bushes", "vineyard", "orchard", "hedge"), "#7c9a3c"),
    (("grass", "grassland", "lawn", "meadow", "low vegetation", "pasture"), "#8fce5a"),
    (
        ("crop", "cultivated", "field", "farm", "farmland", "cropland", "agriculture", "agricultural", "allotment"),
        "#e8c547",
    ),
    (("sand", "beach"), "#ecd9a0"),
    (("soil", "ground", "bare", "dirt", "mud"), "#9c6b3f"),
    (("rail", "railway", "railroad"), "#6d5a72"),
    (("car", "vehicle"), "#e377c2"),
    (("parking",), "#b9a9c9"),
    (("highway", "motorway"), "#5c5c66"),
    (("road", "asphalt", "street"), "#77777f"),
    (("sidewalk", "pavement", "paved", "concrete", "kerb", "curb"), "#b3b3b8"),
    (("roof", "building", "house", "residential", "artificial", "urban"), "#d1453b"),
    (("commercial", "industrial"), "#8c2d4f"),
)
# Paul Tol's muted scheme, then his light one: distinct under the common kinds of colour blindness
OTHERS = (
    "#cc6677", "#332288", "#ddcc77", "#117733", "#88ccee", "#882255", "#44aa99", "#999933", "#aa4499",
    "#77aadd", "#ee8866", "#eedd88", "#ffaabb", "#99ddff", "#44bb99", "#bbcc33", "#aaaa00",
)  # fmt: skip
# Euclidean distance in 8-bit RGB below which two colours of one legend are too alike
LEAST_DISTANCE = 40.0
LIGHTNESS_STEPS = (0.12, -0.12, 0.2, -0.2, 0.28, -0.28)


def class_colours(names: Mapping[int, str]) -> dict[int, str]:
    """One colour a class as ``#rrggbb``, the same for the same classes.

    Args:
        names: class id to name.
    """
    chosen: dict[int, str] = {}
    for class_id, name in sorted(names.items()):
        wanted = _natural(name)
        candidates = [] if wanted is None else [wanted, *(_lighter(wanted, step) for step in LIGHTNESS_STEPS)]
        candidates += OTHERS
        apart = [
            colour for colour in candidates if all(_distance(colour, used) > LEAST_DISTANCE for used in chosen.values())
        ]
        chosen[class_id] = apart[0] if apart else _on_spiral(class_id)
    return chosen


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of ``#rrggbb``."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _natural(name: str) -> str | None:
    plain = name.casefold().replace("_", " ")
    return next(
        (colour for words, colour in NATURAL if any(re.search(rf"\b{word}s?\b", plain) for word in words)), None
    )


def _lighter(colour: str, step: float) -> str:
    hue, lightness, saturation = colorsys.rgb_to_hls(*(part / 255 for part in rgb(colour)))
    return _hex(colorsys.hls_to_rgb(hue, min(max(lightness + step, 0.08), 0.94), saturation))


def _hex(parts: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def _distance(one: str, other: str) -> float:
    return math.dist(rgb(one), rgb(other))


def _on_spiral(class_id: int) -> str:
    """A colour on a spiral of hues, for legends longer than any palette."""
    return _hex(colorsys.hls_to_rgb((class_id * 0.618034) % 1.0, 0.35 + 0.1 * (class_id % 4), 0.6))
