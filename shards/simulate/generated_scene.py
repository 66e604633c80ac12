"""The generated scene: simulated terrain, measured by a simulated spectrometer and laser scanner.

Every value is a function of the settings and the pixel alone, so a scene of any size can be read block by block. Every
output of such a scene says that it is generated.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np

from shards.errors import BadInput
from shards.scene.source import Classes, Labels, Mask, Modality, Values
from shards.simulate.land_cover import APPEARANCES, reference_share
from shards.simulate.procedural_noise import Integers, hashes, nearest_points, uniform
from shards.simulate.sensor_model import RIM, Spectrometer, scan
from shards.simulate.spectra import FIRST_NM, LAST_NM
from shards.simulate.terrain import Terrain, terrain

# made at once, to bound memory
BLOCK_ROWS, BLOCK_COLS = 96, 256


@dataclass(frozen=True)
class GeneratedSceneSpec:
    """The settings of a generated scene.

    Attributes:
        name: name of the scene.
        height: rows, at least 1.
        width: columns, at least 1.
        bands: bands of the spectrometer, at least 1, evenly spaced.
        first_nm: centre of its first band, at least 350 nm.
        last_nm: centre of its last band, at most 2550 nm.
        seed: another seed is another place.
        overlap: 0 to 1, how far similar classes share one spectrum (at 1 only height and place separate them).
        variation: 0 to 1, how far objects of one class differ.
        roughness: 0 to 1, how far pixels of one object differ.
        noise: standard deviation of the sensor's noise in units of reflectance.
        relief_m: difference between the highest and the lowest ground in metres.
        labelled: share of the scene that is labelled, 0 to 1.
        rare: 0 to 1, how unbalanced the labels are; see `reference_share`.
    """

    name: str = "synthetic"
    height: int = 128
    width: int = 160
    bands: int = 64
    first_nm: float = 400.0
    last_nm: float = 2500.0
    seed: int = 6
    overlap: float = 0.15
    variation: float = 0.4
    roughness: float = 0.7
    noise: float = 0.018
    relief_m: float = 8.0
    labelled: float = 0.45
    rare: float = 0.0

    def __post_init__(self) -> None:
        for field in ("height", "width", "bands"):
            if getattr(self, field) < 1:
                raise BadInput(f"generated scene {self.name}: {field}: expected at least 1, got {getattr(self, field)}")
        for field in ("overlap", "variation", "roughness", "labelled", "rare"):
            if not 0 <= getattr(self, field) <= 1:
                raise BadInput(f"generated scene {self.name}: {field}: expected 0 to 1, got {getattr(self, field)}")
        if not FIRST_NM <= self.first_nm <= self.last_nm <= LAST_NM:
            raise BadInput(
                f"generated scene {self.name}: first_nm, last_nm: expected {FIRST_NM:g} <= first_nm <= last_nm <= "
                f"{LAST_NM:g}, got {self.first_nm:g} and {self.last_nm:g}"
            )
        if self.noise < 0 or self.relief_m < 0:
            raise BadInput(f"generated scene {self.name}: noise, relief_m: expected no negative number")


PRESETS: Mapping[str, GeneratedSceneSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            GeneratedSceneSpec(),
            GeneratedSceneSpec(
                name="synthetic-hard", height=144, width=192, seed=7, overlap=0.65, noise=0.02, rare=0.8
            ),
            # another sensor over another place: fewer bands, visible and near infrared
            GeneratedSceneSpec(name="synthetic-vnir", seed=11, bands=24, first_nm=420.0, last_nm=960.0),
        )
    }
)


def generated_scene(name: str) -> "GeneratedScene":
    """The preset scene of that name.

    Raises:
        BadInput: there is none.
    """
    if name not in PRESETS:
        raise BadInput(f"generated scene {name}: unknown name, expected one of {', '.join(PRESETS)}")
    return GeneratedScene(PRESETS[name])


class GeneratedScene:
    """A `SceneSource` of two modalities: `hsi` (int16, reflectance times 10,000) and `height` (float32, metres)."""

    generated = True
    crs_wkt: str | None = None
    transform: tuple[float, float, float, float, float, float] | None = None

    def __init__(self, spec: GeneratedSceneSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.height = spec.height
        self.width = spec.width
        self._step_nm = (spec.last_nm - spec.first_nm) / max(spec.bands - 1, 1)
        self._nm = tuple(round(spec.first_nm + band * self._step_nm, 2) for band in range(spec.bands))
        self._spectrometer = Spectrometer(self._nm, spec.noise, spec.overlap, spec.variation, spec.roughness)

    @property
    def identity(self) -> str:
        """The settings, which determine every pixel."""
        return repr(self.spec)

    @cached_property
    def modalities(self) -> tuple[Modality, ...]:
        fwhm_nm = round(1.1 * self._step_nm, 2) or 10.0
        return (
            Modality("hsi", self.spec.bands, "int16", self._nm, (fwhm_nm,) * self.spec.bands),
            Modality("height", 1, "float32"),
        )

    @cached_property
    def classes(self) -> Classes:
        return Classes(
            names={int(cover): looks.name for cover, looks in APPEARANCES.items()},
            descriptions={int(cover): looks.description for cover, looks in APPEARANCES.items()},
        )

    def read(self, modality: str, rows: slice, cols: slice) -> tuple[Values, Mask]:
        """Values (row, col, band) and where they are valid (row, col); `height` is NaN where no pulse came back.

        Raises:
            BadInput: no such modality.
        """
        record = next((known for known in self.modalities if known.name == modality), None)
        if record is None:
            raise BadInput(f"generated scene {self.name}: no modality {modality}, expected hsi or height")
        (top, bottom), (left, right) = _ends(rows, self.height), _ends(cols, self.width)
        values = np.empty((bottom - top, right - left, record.bands), record.dtype)
        valid = np.ones(values.shape[:2], np.bool_)
        for y, x in _blocks(top, bottom, left, right):
            block = np.s_[y[0] - top : y[-1] + 1 - top, x[0] - left : x[-1] + 1 - left]
            y, x = _with_rim(y), _with_rim(x)
            piece = self._terrain(y, x)
            if modality == "hsi":
                values[block] = self._spectrometer.measure(piece, self._seed + 200, y, x)
            else:
                values[block], valid[block] = scan(piece, self._seed + 300, y, x)
        return values, valid

    def read_labels(self, rows: slice, cols: slice) -> Labels:
        """Class ids (row, col); 0 where a pixel is unlabelled."""
        (top, bottom), (left, right) = _ends(rows, self.height), _ends(cols, self.width)
        labels = np.zeros((bottom - top, right - left), np.uint16)
        share = self.spec.labelled * reference_share(self.spec.rare)
        for y, x in _blocks(top, bottom, left, right):
            cover = self._terrain(y, x).cover
            # labels are drawn patch by patch and class by class
            places = np.meshgrid(y.astype(np.float64), x.astype(np.float64), indexing="ij")
            _, _, patch_row, patch_col = nearest_points(self._seed + 400, *places, spacing=7.0)
            drawn = uniform(hashes(self._seed + 401, patch_row, patch_col, cover)) < share[cover]
            labels[y[0] - top : y[-1] + 1 - top, x[0] - left : x[-1] + 1 - left] = np.where(drawn, cover, 0)
        return labels

    def read_split(self, rows: slice, cols: slice) -> tuple[Labels, Labels]:
        """There is no official split: both maps are empty."""
        (top, bottom), (left, right) = _ends(rows, self.height), _ends(cols, self.width)
        nothing = np.zeros((bottom - top, right - left), np.uint16)
        return nothing, nothing.copy()

    @property
    def _seed(self) -> int:
        # the fields of one scene use consecutive seeds; other scenes use others
        return self.spec.seed * 1000

    def _terrain(self, y: Integers, x: Integers) -> Terrain:
        return terrain(self._seed, y, x, self.spec.relief_m)


def _ends(span: slice, size: int) -> tuple[int, int]:
    start, stop, _ = span.indices(size)
    return start, max(start, stop)


def _blocks(top: int, bottom: int, left: int, right: int) -> Iterator[tuple[Integers, Integers]]:
    """The rows and columns of each block that is made at once."""
    for row in range(top, bottom, BLOCK_ROWS):
        for col in range(left, right, BLOCK_COLS):
            yield np.arange(row, min(row + BLOCK_ROWS, bottom)), np.arange(col, min(col + BLOCK_COLS, right))


def _with_rim(places: Integers) -> Integers:
    return np.arange(places[0] - RIM, places[-1] + 1 + RIM)
