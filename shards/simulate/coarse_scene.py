"""A generated scene as seen from orbit: each pixel mixes several kinds of land cover, and the classes are broad.

It shows the same kind of terrain as `synthetic`, which is seen from the air. There, neighbouring pixels of one object
differ by noise; here they differ by their mixture. Averaging over neighbours helps there and harms here, so settings
are chosen on both scenes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Final

import numpy as np

from shards.errors import BadInput
from shards.scene.source import Classes, Labels, Mask, Modality, Values
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec
from shards.simulate.procedural_noise import Integers, Reals, hashes, uniform
from shards.simulate.sensor_model import STORED_PER_REFLECTANCE, blurred, normals
from shards.simulate.terrain import Cover, terrain

# fine rows made at once, to bound memory
_STRIP: Final = 96
# side, in pixels, of the patches in which the reference map is drawn
_PATCH: Final = 4
# a second spectrometer measures from this wavelength on
_SPLIT_NM: Final = 1000.0

_BROAD: Final[Mapping[str, tuple[Cover, ...]]] = MappingProxyType(
    {
        "roof": (Cover.TILE_ROOF, Cover.METAL_ROOF, Cover.BITUMEN_ROOF),
        "pavement": (Cover.ROAD, Cover.RAILWAY, Cover.CONCRETE),
        "low vegetation": (Cover.HEALTHY_GRASS, Cover.DRY_GRASS, Cover.CROPS, Cover.SYNTHETIC_TURF),
        "tree": (Cover.BROADLEAF_TREES, Cover.CONIFERS),
        "soil": (Cover.BARE_SOIL,),
        "water": (Cover.WATER,),
        "shrubs": (Cover.SHRUBS,),
    }
)


@dataclass(frozen=True)
class CoarseSceneSpec:
    """The settings of a coarse generated scene.

    Attributes:
        name: name of the scene.
        height: rows, at least 1.
        width: columns, at least 1.
        cell: side of a pixel in pixels of the fine scene (2.5 m), at least 1.
        bands: bands from 420 to 990 nm, and from 1000 to 2450 nm; at least 1 each.
        seed: another seed is another place.
        noise: standard deviation of the sensor's noise in units of reflectance, 0 or more.
        purity: share of a pixel that its class must cover for the pixel to be labelled, 0 to 1.
        labelled: share of such pixels that are labelled, 0 to 1.
    """

    name: str = "synthetic-coarse"
    height: int = 128
    width: int = 144
    cell: int = 8
    bands: tuple[int, int] = (40, 60)
    seed: int = 21
    noise: float = 0.0024
    purity: float = 0.5
    labelled: float = 0.4

    def __post_init__(self) -> None:
        for field in ("height", "width", "cell"):
            if getattr(self, field) < 1:
                raise BadInput(f"generated scene {self.name}: {field}: expected at least 1, got {getattr(self, field)}")
        if min(self.bands) < 1:
            raise BadInput(f"generated scene {self.name}: bands: expected at least 1 each, got {self.bands}")
        if self.noise < 0:
            raise BadInput(f"generated scene {self.name}: noise: expected no negative number, got {self.noise}")
        for field in ("purity", "labelled"):
            if not 0 <= getattr(self, field) <= 1:
                raise BadInput(f"generated scene {self.name}: {field}: expected 0 to 1, got {getattr(self, field)}")


class CoarseScene:
    """A `SceneSource` of two modalities, `vnir` and `swir` (int16, reflectance times 10,000)."""

    generated = True
    crs_wkt: str | None = None
    transform: tuple[float, float, float, float, float, float] | None = None

    def __init__(self, spec: CoarseSceneSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.height = spec.height
        self.width = spec.width
        ends = {"vnir": (420.0, _SPLIT_NM - 10.0), "swir": (_SPLIT_NM, 2450.0)}
        self._fine = {
            name: GeneratedScene(
                GeneratedSceneSpec(
                    name=spec.name, height=spec.height * spec.cell, width=spec.width * spec.cell, bands=bands,
                    first_nm=first, last_nm=last, seed=spec.seed, noise=0.0,
                )
            )
            for (name, (first, last)), bands in zip(ends.items(), spec.bands, strict=True)
        }  # fmt: skip

    @property
    def identity(self) -> str:
        """The settings, which determine every pixel."""
        return repr(self.spec)

    @cached_property
    def modalities(self) -> tuple[Modality, ...]:
        hsi = {name: fine.modalities[0] for name, fine in self._fine.items()}
        return tuple(Modality(name, seen.bands, seen.dtype, seen.wavelengths_nm) for name, seen in hsi.items())

    @cached_property
    def classes(self) -> Classes:
        return Classes(names=dict(enumerate(_BROAD, start=1)))

    def read(self, modality: str, rows: slice, cols: slice) -> tuple[Values, Mask]:
        """Values (row, col, band) and where they are valid (row, col), which is everywhere.

        Raises:
            BadInput: no such modality.
        """
        if modality not in self._fine:
            raise BadInput(f"generated scene {self.name}: no modality {modality}, expected vnir or swir")
        y, x = np.arange(self.height)[rows], np.arange(self.width)[cols]
        rim_y, rim_x = _with_rim(y, self.height), _with_rim(x, self.width)
        bands = self._fine[modality].spec.bands
        if not y.size or not x.size:
            return np.empty((y.size, x.size, bands), np.int16), np.ones((y.size, x.size), np.bool_)
        seen = self._cells(modality, rim_y, rim_x)[_places(y, rim_y)][:, _places(x, rim_x)]
        own_seed = self.spec.seed * 1000 + 500 + list(self._fine).index(modality)
        noise = self.spec.noise * STORED_PER_REFLECTANCE * normals(own_seed, y, x, bands)
        values = np.clip(np.rint(seen + noise), -1000, 20_000).astype(np.int16)
        return values, np.ones((y.size, x.size), np.bool_)

    def read_labels(self, rows: slice, cols: slice) -> Labels:
        """Class ids (row, col); 0 where no class covers enough of a pixel, or outside the reference map."""
        y, x = np.arange(self.height)[rows], np.arange(self.width)[cols]
        labels = np.zeros((y.size, x.size), np.uint16)
        drawn = uniform(hashes(self.spec.seed * 1000 + 510, y[:, None] // _PATCH, x[None] // _PATCH))
        for here in _strips(y.size, self.spec.cell) if x.size else ():
            share = self._shares(y[here], x)
            covers = (share.max(axis=2) >= self.spec.purity) & (drawn[here] < self.spec.labelled)
            labels[here] = np.where(covers, share.argmax(axis=2) + 1, 0)
        return labels

    def read_split(self, rows: slice, cols: slice) -> tuple[Labels, Labels]:
        """There is no official split: both maps are empty."""
        shape = (len(range(*rows.indices(self.height))), len(range(*cols.indices(self.width))))
        return np.zeros(shape, np.uint16), np.zeros(shape, np.uint16)

    def _cells(self, modality: str, y: Integers, x: Integers) -> Reals:
        """Mean of the fine values in each pixel, half of it blurred over the neighbours."""
        cell, fine = self.spec.cell, self._fine[modality]
        across = slice(int(x[0]) * cell, (int(x[-1]) + 1) * cell)
        means = np.empty((y.size, x.size, fine.spec.bands))
        for here in _strips(y.size, cell):
            top, bottom = int(y[here][0]) * cell, (int(y[here][-1]) + 1) * cell
            values, _ = fine.read("hsi", slice(top, bottom), across)
            blocks = values.reshape(len(y[here]), cell, x.size, cell, -1)
            # a sum of integers does not depend on its order
            means[here] = blocks.sum(axis=(1, 3), dtype=np.int64) / cell**2
        mixed: Reals = 0.5 * means + 0.5 * blurred(np.pad(means, ((1, 1), (1, 1), (0, 0)), mode="edge"))
        return mixed

    def _shares(self, y: Integers, x: Integers) -> Reals:
        """Share of each pixel that each class covers (row, col, class)."""
        cell = self.spec.cell
        spec = self._fine["vnir"].spec
        rows = np.arange(int(y[0]) * cell, (int(y[-1]) + 1) * cell)
        cols = np.arange(int(x[0]) * cell, (int(x[-1]) + 1) * cell)
        cover = terrain(spec.seed * 1000, rows, cols, spec.relief_m).cover.reshape(y.size, cell, x.size, cell)
        counts = [np.isin(cover, list(kinds)).sum(axis=(1, 3)) for kinds in _BROAD.values()]
        return np.stack(counts, axis=2) / cell**2


def _with_rim(places: Integers, size: int) -> Integers:
    """The places and one more on each side, within the scene."""
    return np.arange(max(int(places[0]) - 1, 0), min(int(places[-1]) + 2, size)) if places.size else places


def _places(wanted: Integers, among: Integers) -> slice:
    return slice(int(wanted[0] - among[0]), int(wanted[-1] - among[0]) + 1)


def _strips(rows: int, cell: int) -> list[slice]:
    """Slices of the rows that are made at once."""
    step = max(_STRIP // cell, 1)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
