"""The classes of the generated scene: name, description, and the mixture of materials."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shards.simulate.procedural_noise import Reals
from shards.simulate.spectra import MATERIALS
from shards.simulate.terrain import Cover

Mixture = Mapping[str, float]


@dataclass(frozen=True)
class Appearance:
    """One class of the generated scene.

    Attributes:
        name: class name.
        description: what it looks like to the sensors, for text prompts.
        typical: shares of materials, with the sum 1.
        between_objects: mixture towards which whole houses, fields or trees of the class vary.
        within_object: mixture towards which single pixels of one object vary.
    """

    name: str
    description: str
    typical: Mixture
    between_objects: Mixture
    within_object: Mixture


APPEARANCES: Mapping[Cover, Appearance] = {
    Cover.HEALTHY_GRASS: Appearance(
        "healthy grass",
        "dense green lawn close to the ground, steep red edge and high near-infrared reflectance",
        {"lawn": 0.9, "soil": 0.1},
        {"straw": 0.5, "lawn": 0.5},
        {"soil": 0.6, "broadleaf": 0.4},
    ),
    Cover.DRY_GRASS: Appearance(
        "dry grass",
        "yellowed low grass, weak red edge, cellulose absorption near 2100 nm",
        {"straw": 0.6, "lawn": 0.25, "soil": 0.15},
        {"lawn": 0.7, "soil": 0.3},
        {"soil": 0.7, "bush": 0.3},
    ),
    Cover.SYNTHETIC_TURF: Appearance(
        "synthetic turf",
        "flat sports field of green polymer, no chlorophyll, sharp hydrocarbon absorption near 1730 and 2310 nm",
        {"polymer turf": 1.0},
        {"polymer turf": 0.5, "asphalt": 0.3, "lawn": 0.2},
        {"soil": 0.5, "lawn": 0.5},
    ),
    Cover.SHRUBS: Appearance(
        "shrubs",
        "woody bushes and hedges one to three metres high, green with gaps",
        {"bush": 0.75, "soil": 0.1, "straw": 0.15},
        {"broadleaf": 0.6, "straw": 0.4},
        {"lawn": 0.4, "soil": 0.6},
    ),
    Cover.BROADLEAF_TREES: Appearance(
        "broadleaf trees",
        "crowns of leafy trees seven to fourteen metres high, very high near-infrared reflectance and shaded gaps",
        {"broadleaf": 0.95, "bush": 0.05},
        {"bush": 0.6, "crop leaf": 0.4},
        {"needles": 0.5, "soil": 0.2, "lawn": 0.3},
    ),
    Cover.CONIFERS: Appearance(
        "coniferous trees",
        "pointed crowns of needle trees, dark green, moderate near-infrared reflectance, strong water absorption",
        {"needles": 0.95, "straw": 0.05},
        {"broadleaf": 0.6, "straw": 0.4},
        {"broadleaf": 0.5, "soil": 0.5},
    ),
    Cover.CROPS: Appearance(
        "crops",
        "even field of a green crop half a metre to a metre high, very high near-infrared reflectance",
        {"crop leaf": 0.85, "soil": 0.15},
        {"soil": 0.5, "straw": 0.5},
        {"soil": 0.7, "lawn": 0.3},
    ),
    Cover.BARE_SOIL: Appearance(
        "bare soil",
        "ploughed or open ground, reflectance rising with wavelength, clay absorption near 2200 nm",
        {"soil": 0.95, "straw": 0.05},
        {"straw": 0.5, "ballast": 0.5},
        {"lawn": 0.4, "straw": 0.6},
    ),
    Cover.WATER: Appearance(
        "water",
        "river, low reflectance that vanishes beyond the visible",
        {"river water": 1.0},
        {"river water": 0.9, "soil": 0.1},
        {"river water": 0.8, "bush": 0.2},
    ),
    Cover.ROAD: Appearance(
        "road",
        "asphalt street at ground level, dark and nearly flat spectrum",
        {"asphalt": 0.95, "concrete": 0.05},
        {"concrete": 0.5, "bitumen": 0.5},
        {"ballast": 0.5, "soil": 0.3, "coated metal": 0.2},
    ),
    Cover.RAILWAY: Appearance(
        "railway",
        "track on crushed stone, brownish grey, a long narrow strip",
        {"ballast": 0.9, "asphalt": 0.1},
        {"soil": 0.5, "ballast": 0.5},
        {"coated metal": 0.3, "bitumen": 0.3, "straw": 0.4},
    ),
    Cover.CONCRETE: Appearance(
        "concrete pavement",
        "bright yard or parking lot at ground level, carbonate absorption near 2335 nm",
        {"concrete": 0.9, "asphalt": 0.1},
        {"asphalt": 0.7, "soil": 0.3},
        {"asphalt": 0.5, "ballast": 0.3, "coated metal": 0.2},
    ),
    Cover.TILE_ROOF: Appearance(
        "tile roof",
        "pitched roof of red fired clay, iron oxide rise near 600 nm, four metres or more above the ground",
        {"fired clay": 0.9, "bitumen": 0.1},
        {"bitumen": 0.4, "concrete": 0.4, "soil": 0.2},
        {"bush": 0.4, "soil": 0.6},
    ),
    Cover.METAL_ROOF: Appearance(
        "metal roof",
        "large bright roof of coated metal, falling slowly with wavelength, five metres or more above the ground",
        {"coated metal": 0.8, "concrete": 0.2},
        {"concrete": 0.6, "bitumen": 0.4},
        {"concrete": 0.6, "bitumen": 0.4},
    ),
    Cover.BITUMEN_ROOF: Appearance(
        "bitumen roof",
        "flat dark roof with hydrocarbon absorption near 1730 and 2310 nm, four metres or more above the ground",
        {"bitumen": 0.9, "ballast": 0.1},
        {"asphalt": 0.6, "concrete": 0.4},
        {"ballast": 0.6, "bush": 0.2, "coated metal": 0.2},
    ),
}

# classes with similar spectra, which differ in height or in their surroundings
SIMILAR_CLASSES: tuple[frozenset[Cover], ...] = (
    frozenset({Cover.HEALTHY_GRASS, Cover.CROPS, Cover.SHRUBS, Cover.BROADLEAF_TREES, Cover.CONIFERS}),
    frozenset({Cover.ROAD, Cover.BITUMEN_ROOF, Cover.RAILWAY}),
    frozenset({Cover.CONCRETE, Cover.METAL_ROOF}),
    frozenset({Cover.BARE_SOIL, Cover.TILE_ROOF, Cover.DRY_GRASS}),
)

# from the most to the least labelled class, where labels are unbalanced
BY_LABELLED_SHARE: tuple[Cover, ...] = (
    Cover.ROAD,
    Cover.CROPS,
    Cover.BROADLEAF_TREES,
    Cover.DRY_GRASS,
    Cover.HEALTHY_GRASS,
    Cover.CONCRETE,
    Cover.TILE_ROOF,
    Cover.SHRUBS,
    Cover.CONIFERS,
    Cover.BARE_SOIL,
    Cover.METAL_ROOF,
    Cover.WATER,
    Cover.BITUMEN_ROOF,
    Cover.RAILWAY,
    Cover.SYNTHETIC_TURF,
)

MATERIAL_NAMES: tuple[str, ...] = tuple(MATERIALS)


def mixing_table(overlap: float) -> Reals:
    """Shares of materials, (3, class id, material): typical, between objects, within an object. Class id 0 is unused.

    Args:
        overlap: 0 to 1, how far each class is moved to the mean of its similar classes.
    """
    table = np.zeros((3, max(Cover) + 1, len(MATERIAL_NAMES)))
    for cover, looks in APPEARANCES.items():
        for part, mixture in enumerate((looks.typical, looks.between_objects, looks.within_object)):
            for material, share in mixture.items():
                table[part, cover, MATERIAL_NAMES.index(material)] = share
    for group in SIMILAR_CLASSES:
        ids = sorted(group)
        table[:, ids] = (1 - overlap) * table[:, ids] + overlap * table[:, ids].mean(axis=1, keepdims=True)
    return table


def reference_share(rare: float) -> Reals:
    """Labelled share of each class's pixels, relative to the most labelled class, by class id.

    Args:
        rare: 0 (all classes alike) to 1 (the least labelled class has no label); the share falls evenly in between.
    """
    share = np.zeros(max(Cover) + 1)
    # the order mixes the groups of similar classes
    share[list(BY_LABELLED_SHARE)] = 1 - rare * np.arange(len(BY_LABELLED_SHARE)) / (len(BY_LABELLED_SHARE) - 1)
    return share
