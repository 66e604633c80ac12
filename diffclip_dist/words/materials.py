"""The materials that class names are matched with: wordings, composition, source."""

from dataclasses import dataclass
from typing import Final

Range = tuple[float, float]

# groups of the library, or physics by formula
Ingredient = tuple[str, ...]

CLEAR_WATER: Final[Ingredient] = ("clear water",)
TURBID_WATER: Final[Ingredient] = ("turbid water",)
SNOW: Final[Ingredient] = ("snow",)
FORMULAS: Final = (CLEAR_WATER, TURBID_WATER, SNOW)

_SOIL: Final[Ingredient] = ("soil",)
_LITTER: Final[Ingredient] = ("litter", "npv")
_WOOD: Final[Ingredient] = ("bark", "wood", "npv")
_CANOPY: Final[Ingredient] = ("canopy",)
_ROOFS: Final[Ingredient] = ("comp_shingle", "tile", "concrete_tile", "wood_shingle", "metal")
_STREETS: Final[Ingredient] = ("road", "parking_lot", "sidewalk", "driveway", "asphalt")


@dataclass(frozen=True)
class Part:
    """One ingredient of a material.

    Attributes:
        of: groups of the library from which one spectrum a draw is taken, or a formula.
        share: range of its part of the ground before the parts are brought to the sum 1.
        leaf_area: range of leaf area index, for canopies.
    """

    of: Ingredient
    share: Range = (1.0, 1.0)
    leaf_area: Range | None = None


@dataclass(frozen=True)
class Material:
    """What a class may be made of.

    Attributes:
        name: its own short name.
        captions: plain wordings that class names are compared with.
        parts: what one pixel of it is mixed from.
        shade: range of the share of a pixel that lies in shade.
        wetness: range, 0 dry to 1 soaked; soil darkens with it.
        tall: True where it stands metres above the ground, False where it lies on it, None where either may be.
    """

    name: str
    captions: tuple[str, ...]
    parts: tuple[Part, ...]
    shade: Range = (0.0, 0.15)
    wetness: Range = (0.0, 0.0)
    tall: bool | None = False

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the spectra of its parts come from, with their licences."""
        return tuple(dict.fromkeys(source for part in self.parts for source in _sources(part.of)))


SOURCES: Final = {
    "soil": "earthlib 1.1 (MIT): ICRAF-ISRIC soil VNIR spectral library",
    "urban": "earthlib 1.1 (MIT): urban reflectance spectra of Santa Barbara, UCSB",
    "fuels": "earthlib 1.1 (MIT): Joint Fire Science Program, HyspIRI campaign, USGS spectral library 7",
    "canopy": "earthlib 1.1 (MIT): simulated with PROSAIL",
    "clear water": "formula (this package): Lee et al. 1999",
    "turbid water": "formula (this package): Lee et al. 1999",
    "snow": "formula (this package): Kokhanovsky and Zege 2004",
}
_FUELS: Final = ("bark", "wood", "npv", "litter", "char")


def _sources(ingredient: Ingredient) -> tuple[str, ...]:
    keys = ("fuels" if one in _FUELS else one if one in SOURCES else "urban" for one in ingredient)
    return tuple(SOURCES[key] for key in keys)


# words that name several materials alike stand in the captions of each
_ANY_TREE: Final = ("tree", "trees", "forest", "woodland")
_ANY_ROOF: Final = ("roof", "building", "buildings", "house", "rooftop")
_ANY_PAVING: Final = ("pavement", "paved ground", "impervious surface")
_ANY_FIELD: Final = ("cropland", "cultivated land", "farmland", "agricultural field")

MATERIALS: Final[tuple[Material, ...]] = (
    Material(
        "trees",
        (*_ANY_TREE, "woods", "deciduous trees", "broadleaf forest", "tree canopy"),
        (Part(_CANOPY, leaf_area=(3.0, 10.0)), Part(_WOOD, (0.0, 0.12))),
        shade=(0.1, 0.6),
        tall=True,
    ),
    Material(
        "conifers",
        (*_ANY_TREE, "coniferous trees", "evergreen needle forest", "pine trees", "spruce and fir forest"),
        (Part(_CANOPY, leaf_area=(3.0, 10.0)), Part(_WOOD, (0.05, 0.25))),
        shade=(0.4, 0.75),
        tall=True,
    ),
    Material(
        "orchard",
        ("orchard", "vineyard", "olive grove", "fruit trees in rows", "plantation"),
        (Part(_CANOPY, (0.35, 0.65), (2.0, 6.0)), Part(_SOIL, (0.25, 0.5)), Part(_LITTER, (0.0, 0.2))),
        shade=(0.05, 0.3),
        tall=None,
    ),
    Material(
        "shrubs",
        ("shrub", "shrubs", "bushes", "shrubland", "scrub", "heath", "hedge", "thicket"),
        (Part(_CANOPY, (0.5, 0.8), (1.5, 5.0)), Part(_WOOD, (0.1, 0.3)), Part(_SOIL, (0.05, 0.25))),
        shade=(0.1, 0.4),
        tall=None,
    ),
    Material(
        "grass",
        ("grass", "lawn", "meadow", "grassland", "pasture", "hayfield", "low vegetation", "green grass"),
        (Part(_CANOPY, (0.7, 1.0), (1.5, 6.0)), Part(_LITTER, (0.0, 0.25)), Part(_SOIL, (0.0, 0.15))),
    ),
    Material(
        "dry grass",
        (
            "dry grass",
            "low vegetation",
            "grassland",
            *_ANY_FIELD,
            "withered grass",
            "dead grass",
            "stressed grass",
            "straw",
            "stubble",
            "savanna",
            "steppe",
        ),
        (Part(_LITTER, (0.5, 0.9)), Part(_CANOPY, (0.1, 0.35), (0.5, 3.0)), Part(_SOIL, (0.05, 0.3))),
    ),
    Material(
        "green crops",
        (*_ANY_FIELD, "crops", "green crop", "field of vegetables", "growing cereals", "cornfield", "low vegetation"),
        (Part(_CANOPY, (0.55, 1.0), (2.0, 8.0)), Part(_SOIL, (0.0, 0.4))),
    ),
    Material(
        "bare soil",
        (
            "bare soil",
            "soil",
            "bare ground",
            "earth",
            "ploughed field",
            "fallow field",
            "mud",
            "bare land",
            *_ANY_FIELD,
        ),
        (Part(("soil", "dirt")), Part(_LITTER, (0.0, 0.1))),
        wetness=(0.0, 1.0),
    ),
    Material(
        "dirt road",
        ("dirt road", "unpaved road", "dirt path", "gravel track", "trail"),
        (Part(("dirt", "gravel"), (0.6, 1.0)), Part(_SOIL, (0.2, 0.6))),
        wetness=(0.0, 0.4),
    ),
    Material(
        "sand",
        ("sand", "beach", "sand dunes", "desert", "sandy shore"),
        (Part(("sand",), (0.8, 1.0)), Part(_SOIL, (0.0, 0.3))),
        wetness=(0.0, 0.5),
    ),
    Material(
        "gravel",
        ("gravel", "rock", "stones", "quarry", "open pit mine", "railway ballast", "scree"),
        (Part(("gravel",), (0.7, 1.0)), Part(("soil", "dirt"), (0.0, 0.3))),
    ),
    Material(
        "asphalt",
        ("asphalt", "asphalt road", "road", "street", "highway", "tarmac", "runway", *_ANY_PAVING),
        (Part(("road", "asphalt")), Part(_SOIL, (0.0, 0.08))),
    ),
    Material(
        "parking lot",
        ("parking lot", "car park", "parking area", "parked cars", *_ANY_PAVING),
        (Part(("parking_lot",), (0.6, 1.0)), Part(("paint", "metal", "road"), (0.0, 0.3))),
    ),
    Material(
        "concrete",
        ("concrete", "sidewalk", "concrete surface", "plaza", *_ANY_PAVING),
        (Part(("sidewalk", "driveway", "bridge")),),
    ),
    Material(
        "shingle roof",
        (*_ANY_ROOF, "shingle roof"),
        (Part(("comp_shingle", "concrete_tile")),),
        tall=True,
    ),
    Material(
        "tile roof",
        (*_ANY_ROOF, "red tile roof", "clay tile roof", "brick", "terracotta"),
        (Part(("tile", "other")),),
        tall=True,
    ),
    Material(
        "metal roof",
        (*_ANY_ROOF, "metal roof", "metal sheets", "steel roof", "industrial hall", "warehouse roof"),
        (Part(("metal",)), Part(("paint",), (0.0, 0.5))),
        tall=True,
    ),
    Material(
        "wooden roof",
        (*_ANY_ROOF, "wooden roof", "wood shingle roof", "wooden deck"),
        (Part(("wood_shingle",)),),
        tall=True,
    ),
    Material(
        "painted surface",
        ("painted surface", "tennis court", "running track", "sports court", "swimming pool deck"),
        (Part(("paint",)),),
    ),
    Material(
        "built-up area",
        ("built-up area", "village", "city", "suburb", "housing estate", "settlement", "artificial surface"),
        (
            Part(_ROOFS, (0.2, 0.5)),
            Part(_STREETS, (0.2, 0.5)),
            Part(_CANOPY, (0.1, 0.5), (1.5, 6.0)),
            Part(_SOIL, (0.0, 0.2)),
        ),
        shade=(0.05, 0.3),
        tall=None,
    ),
    Material(
        "cleared land",
        ("cleared land", "clear-cut", "deforested area", "logging site", "cleared"),
        (Part(("soil", "dirt"), (0.2, 0.6)), Part(_LITTER, (0.1, 0.4)), Part(_CANOPY, (0.2, 0.6), (0.5, 3.0))),
        wetness=(0.0, 0.6),
    ),
    Material(
        "dead wood",
        ("dead wood", "fallen trees", "fallen dry wood", "dry dead trees", "logs", "branches on the ground"),
        (Part(_WOOD, (0.5, 1.0)), Part(_LITTER, (0.1, 0.5)), Part(_SOIL, (0.0, 0.2))),
        shade=(0.05, 0.35),
        tall=None,
    ),
    Material(
        "leaf litter",
        ("leaf litter", "fallen leaves", "mulch", "dead vegetation", "dry leaves"),
        (Part(_LITTER), Part(_SOIL, (0.0, 0.2))),
    ),
    Material(
        "burnt land",
        ("burnt land", "burn scar", "charcoal", "ash", "burned forest", "scorched ground"),
        (Part(("char",), (0.6, 1.0)), Part(_SOIL, (0.0, 0.3)), Part(_WOOD, (0.0, 0.2))),
        tall=None,
    ),
    Material(
        "clear water",
        ("water", "lake", "sea", "ocean", "deep water", "reservoir"),
        (Part(CLEAR_WATER),),
        shade=(0.0, 0.0),
    ),
    Material(
        "turbid water",
        ("water", "river", "muddy water", "pond", "canal", "stream", "flood water"),
        (Part(TURBID_WATER),),
        shade=(0.0, 0.0),
    ),
    Material(
        "wetland",
        ("wetland", "marsh", "swamp", "reeds", "flooded vegetation", "bog", "mangrove"),
        (Part(_CANOPY, (0.35, 0.7), (1.0, 4.0)), Part(TURBID_WATER, (0.2, 0.5)), Part(_LITTER, (0.0, 0.3))),
        tall=None,
    ),
    Material(
        "snow",
        ("snow", "ice", "glacier", "snow cover"),
        (Part(SNOW), Part(("soil", "gravel"), (0.0, 0.15))),
    ),
    Material(
        "shadow",
        ("shadow", "shade", "shaded area"),
        (Part((*_STREETS, *_ROOFS), (0.0, 1.0)), Part(_CANOPY, (0.0, 1.0), (0.5, 10.0)), Part(_SOIL, (0.0, 0.5))),
        shade=(0.88, 1.0),
        tall=None,
    ),
)
