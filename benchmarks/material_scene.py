"""Generated scenes whose ground is made of the materials that class names are matched with.

The layout is that of the generated scene, at several resolutions: each kind of cover becomes a material, often one
that looks like it, else any that stands as high. Spectra come from the library at a random sensor's bands. Labels are
places of materials, so that a pixel's captions are its material's. Pixels mix with their neighbours; shade is that of
the materials; haze and noise are the sensor's.

Shapes: H rows and W columns, R and Q with the rim of `sensor_model.RIM`, B bands, w wavelengths of the library's grid.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from diffclip_dist.words.material_spectra import draw_material
from diffclip_dist.words.materials import MATERIALS
from diffclip_dist.words.spectral_library import GRID_NM, LibrarySpectra, Reals
from shards.scene.array_scene import ArrayScene
from shards.scene.sensors import SENSORS
from shards.scene.source import Classes, Values
from shards.simulate.procedural_noise import value_noise
from shards.simulate.sensor_model import RIM, STORED_PER_REFLECTANCE, blurred, inner, scan
from shards.simulate.terrain import Cover, Terrain, terrain

Integers = npt.NDArray[np.int64]

# Materials that look like each cover
LIKE: Final[dict[Cover, tuple[str, ...]]] = {
    Cover.HEALTHY_GRASS: ("grass",), Cover.DRY_GRASS: ("dry grass",), Cover.SYNTHETIC_TURF: ("painted surface", "sand"),
    Cover.SHRUBS: ("shrubs", "orchard"), Cover.BROADLEAF_TREES: ("trees",), Cover.CONIFERS: ("conifers",),
    Cover.CROPS: ("green crops",), Cover.BARE_SOIL: ("bare soil", "cleared land"),
    Cover.WATER: ("clear water", "turbid water"), Cover.ROAD: ("asphalt", "dirt road"),
    Cover.RAILWAY: ("gravel", "dirt road"), Cover.CONCRETE: ("concrete", "parking lot"),
    Cover.TILE_ROOF: ("tile roof", "wooden roof"), Cover.METAL_ROOF: ("metal roof",),
    Cover.BITUMEN_ROOF: ("shingle roof",),
}  # fmt: skip
TALL: Final = (Cover.BROADLEAF_TREES, Cover.CONIFERS, Cover.TILE_ROOF, Cover.METAL_ROOF, Cover.BITUMEN_ROOF)
PLACE_OF: Final = {material.name: place for place, material in enumerate(MATERIALS)}
# Spectra that the objects of a material have in common in a scene
COMMON: Final = 4


@dataclass(frozen=True)
class Bands:
    """Centres and full widths at half maximum in nm, one a band."""

    centres_nm: Reals
    widths_nm: Reals

    @property
    def response(self) -> Reals:
        """What each wavelength of the library's grid counts in each band, (w, B); columns have the sum 1."""
        deviation_B = np.maximum(self.widths_nm, 8.0) / 2.355
        response_wB = np.exp(-0.5 * ((GRID_NM[:, None] - self.centres_nm) / deviation_B) ** 2)
        shares_wB: Reals = response_wB / response_wB.sum(axis=0)
        return shares_wB


def material_scene(name: str, seed: int, library: LibrarySpectra, side: int) -> ArrayScene:
    """A scene of materials; class names are those of the materials, and every pixel is labelled.

    Args:
        name: of the scene.
        seed: of every draw.
        library: where spectra come from.
        side: rows and columns.
    """
    random = np.random.default_rng((seed, 1))
    bands = _bands(random)
    step = int(random.choice((1, 1, 2, 3)))  # a pixel of 2.5, 5 or 7.5 m
    y_R, x_Q = (np.arange(-RIM, side + RIM) * step + int(random.integers(0, 2000)) for _ in range(2))
    piece = terrain(seed * 1000, y_R, x_Q, relief_m=8.0)
    material_RQ = _materials(piece, random)
    pure_RQB = _spectra(material_RQ, piece, library, bands, random)
    seen_HWB = np.stack([inner(blurred(band_RQ), RIM - 1) for band_RQ in np.moveaxis(pure_RQB, -1, 0)], axis=-1)
    seen_HWB = _measured(seen_HWB, bands.centres_nm, seed, y_R[RIM:-RIM], x_Q[RIM:-RIM], random)
    values: dict[str, Values] = {
        "hsi": np.clip(np.rint(STORED_PER_REFLECTANCE * seen_HWB), -1000, 20_000).astype(np.int16)
    }
    if random.random() < 0.4:
        values["height"] = scan(piece, seed * 1000 + 300, y_R, x_Q)[0]
    labels = (inner(material_RQ) + 1).astype(np.uint16)
    names = {int(class_id): MATERIALS[class_id - 1].name for class_id in np.unique(labels)}
    wavelengths_nm = {"hsi": tuple(np.round(bands.centres_nm, 1).tolist())}
    return ArrayScene(name, values, wavelengths_nm, Classes(names, {}), labels, generated=True)


def _bands(random: np.random.Generator) -> Bands:
    """Sentinel-2, Landsat 5, or a spectrometer to 850..1050 or to 2200..2450 nm."""
    kind = int(random.integers(0, 8))
    if kind < 2:
        sensor = SENSORS[("sentinel2", "landsat5")[kind]]
        centres_nm, widths_nm = np.array(sensor.centres_nm), np.array(sensor.widths_nm)
        known = (centres_nm >= GRID_NM[0]) & (centres_nm <= GRID_NM[-1])
        return Bands(centres_nm[known], widths_nm[known])
    count = int(random.integers(24, 130))
    first, last = random.uniform(400, 450), random.uniform(850, 1050) if kind < 4 else random.uniform(2200, 2450)
    return Bands(np.linspace(first, last, count), np.full(count, 1.1 * (last - first) / (count - 1)))


def _materials(piece: Terrain, random: np.random.Generator) -> Integers:
    """The place in `MATERIALS` of each pixel's material, (R, Q)."""
    natural = random.random() < 0.6
    of_cover = np.zeros(max(Cover) + 1, np.int64)
    for cover in Cover:
        if natural and random.random() < 0.8:
            of_cover[cover] = PLACE_OF[str(random.choice(LIKE[cover]))]
        else:
            unlike = cover not in TALL  # True for low covers, which no tall material is put on
            of_cover[cover] = random.choice([place for place, one in enumerate(MATERIALS) if one.tall is not unlike])
    return of_cover[piece.cover]


def _spectra(
    material_RQ: Integers, piece: Terrain, library: LibrarySpectra, bands: Bands, random: np.random.Generator
) -> Reals:
    """Reflectance (R, Q, B): objects differ within a material, and pixels within an object."""
    response_wB = bands.response
    spectra_RQB = np.zeros((*material_RQ.shape, len(bands.centres_nm)))
    roughness = random.uniform(0.1, 0.7)
    for place in np.unique(material_RQ).tolist():
        here = material_RQ == place
        _, object_P = np.unique(piece.object_hash[here], return_inverse=True)
        objects = int(object_P.max()) + 1
        common, own, single = (
            draw_material(MATERIALS[place], library, count, random) @ response_wB
            for count in (COMMON, objects, len(object_P))
        )
        variation, rough_P1 = random.uniform(0.1, 0.8), roughness * random.random((len(object_P), 1)) ** 2
        mean = (1 - variation) * common[random.integers(0, COMMON, objects)] + variation * own
        spectra_RQB[here] = (1 - rough_P1) * mean[object_P] + rough_P1 * single
    return spectra_RQB


def _measured(
    ground_HWB: Reals, nm_B: Reals, seed: int, y_H: Integers, x_W: Integers, random: np.random.Generator
) -> Reals:
    """Reflectance as a sensor tells it: uneven light, calibration, haze, noise."""
    light = value_noise(seed * 1000 + 400, y_H[:, None].astype(np.float64), x_W[None].astype(np.float64), 45.0)
    gain_B = random.normal(0, 0.1) * (nm_B - 1000) / 1000 + random.normal(0, 0.02, len(nm_B))
    seen_HWB = ground_HWB * np.exp(random.normal(0, 0.2) + 0.3 * (light - 0.5))[..., None] * np.exp(gain_B)
    haze_B = random.uniform(0, 0.03) * (nm_B / 550) ** -random.uniform(1, 4)
    noise = np.exp(random.uniform(np.log(0.002), np.log(0.02)))
    measured_HWB: Reals = seen_HWB + haze_B + noise * random.normal(size=seen_HWB.shape)
    return measured_HWB
