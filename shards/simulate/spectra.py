"""Reflectance of ground materials as functions of wavelength: modelled, not measured.

Leaves follow the shape of leaf models such as PROSPECT (chlorophyll, red edge, liquid water at 970, 1200, 1450 and
1940 nm); mineral and man-made materials are a smooth continuum with absorption features at wavelengths that spectral
libraries report (iron oxide 480 and 870 nm, clay 2200 nm, carbonate 2335 nm, hydrocarbons 1730 and 2310 nm).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

Spectrum = npt.NDArray[np.float64]

LIQUID_WATER = (
    (970.0, 35.0, 0.12),
    (1200.0, 55.0, 0.3),
    (1450.0, 75.0, 1.6),
    (1940.0, 95.0, 2.2),
    (2500.0, 220.0, 2.0),
)
FIRST_NM, LAST_NM = 350.0, 2550.0


def _peak(nm: Spectrum, centre: float, width: float) -> Spectrum:
    return np.exp(-0.5 * ((nm - centre) / width) ** 2)


def _step(nm: Spectrum, centre: float, width: float) -> Spectrum:
    return 1.0 / (1.0 + np.exp(-(nm - centre) / width))


@dataclass(frozen=True)
class Leaf:
    """A green canopy.

    Attributes:
        chlorophyll: depth of the visible absorption, 0 (pale) to 1 (dark green).
        near_infrared: reflectance of the plateau beyond the red edge, 0 to 1.
        red_edge_nm: where the red edge rises fastest; moves to longer wavelengths with chlorophyll.
        water: thickness of liquid water, in units of a well watered leaf.
    """

    chlorophyll: float
    near_infrared: float
    red_edge_nm: float
    water: float

    def reflectance(self, nm: Spectrum) -> Spectrum:
        visible = 0.13 - 0.105 * self.chlorophyll + (0.10 - 0.04 * self.chlorophyll) * _peak(nm, 552.0, 32.0)
        edge = _step(nm, self.red_edge_nm, 13.0)
        canopy = visible * (1 - edge) + self.near_infrared * edge
        depth = sum(strength * _peak(nm, centre, width) for centre, width, strength in LIQUID_WATER)
        return canopy * np.exp(-self.water * depth) * (1 - 0.35 * _step(nm, 1350.0, 60.0))


@dataclass(frozen=True)
class Material:
    """Anything without a red edge.

    Attributes:
        continuum: (nanometres, reflectance) of the smooth curve, from 350 to 2550 nm.
        absorptions: (centre in nm, width in nm, depth) of each feature, depth as absorbance.
    """

    continuum: tuple[tuple[float, float], ...]
    absorptions: tuple[tuple[float, float, float], ...] = ()

    def reflectance(self, nm: Spectrum) -> Spectrum:
        places, levels = zip(*self.continuum, strict=True)
        depth = sum((d * _peak(nm, centre, width) for centre, width, d in self.absorptions), np.zeros_like(nm))
        curve: Spectrum = PchipInterpolator(places, levels)(nm) * np.exp(-depth)
        return curve


HYDROCARBONS = ((1730.0, 25.0, 0.10), (2310.0, 35.0, 0.18))

MATERIALS: Mapping[str, Leaf | Material] = {
    "lawn": Leaf(chlorophyll=0.75, near_infrared=0.46, red_edge_nm=714, water=0.8),
    "broadleaf": Leaf(chlorophyll=0.85, near_infrared=0.50, red_edge_nm=718, water=1.0),
    "needles": Leaf(chlorophyll=0.95, near_infrared=0.30, red_edge_nm=720, water=1.25),
    "crop leaf": Leaf(chlorophyll=0.65, near_infrared=0.55, red_edge_nm=710, water=1.1),
    "bush": Leaf(chlorophyll=0.70, near_infrared=0.38, red_edge_nm=715, water=0.6),
    "straw": Material(
        ((350, 0.07), (550, 0.16), (800, 0.30), (1300, 0.42), (1700, 0.38), (2550, 0.22)),
        ((680.0, 30.0, 0.10), (1450.0, 60.0, 0.15), (1940.0, 70.0, 0.30), (2100.0, 50.0, 0.15), (2300.0, 40.0, 0.12)),
    ),
    "soil": Material(
        ((350, 0.06), (550, 0.13), (800, 0.23), (1300, 0.32), (1800, 0.36), (2550, 0.30)),
        ((480.0, 40.0, 0.12), (870.0, 60.0, 0.08), (1410.0, 30.0, 0.12), (1920.0, 50.0, 0.30), (2205.0, 25.0, 0.15)),
    ),
    "river water": Material(
        ((350, 0.035), (480, 0.05), (560, 0.075), (690, 0.035), (800, 0.015), (1000, 0.004), (2550, 0.002))
    ),
    "asphalt": Material(((350, 0.07), (700, 0.105), (1300, 0.145), (1900, 0.16), (2550, 0.15)), HYDROCARBONS),
    "bitumen": Material(((350, 0.05), (700, 0.065), (1300, 0.095), (1900, 0.12), (2550, 0.12)), HYDROCARBONS),
    "concrete": Material(
        ((350, 0.15), (600, 0.28), (1000, 0.33), (1700, 0.36), (2550, 0.28)),
        ((1410.0, 40.0, 0.06), (1930.0, 60.0, 0.15), (2335.0, 30.0, 0.12)),
    ),
    "ballast": Material(
        ((350, 0.09), (600, 0.15), (1000, 0.17), (1700, 0.21), (2550, 0.20)),
        ((480.0, 40.0, 0.12), (1020.0, 120.0, 0.12)),
    ),
    "fired clay": Material(
        ((350, 0.05), (520, 0.08), (620, 0.22), (800, 0.30), (1300, 0.38), (2550, 0.36)),
        ((870.0, 60.0, 0.15), (1920.0, 60.0, 0.08), (2205.0, 25.0, 0.06)),
    ),
    "coated metal": Material(
        ((350, 0.25), (500, 0.42), (900, 0.40), (1600, 0.34), (2550, 0.26)), ((1000.0, 90.0, 0.10),)
    ),
    "polymer turf": Material(
        ((350, 0.03), (470, 0.05), (525, 0.13), (600, 0.05), (720, 0.09), (820, 0.32), (1300, 0.36), (2550, 0.20)),
        ((1215.0, 25.0, 0.15), (1730.0, 30.0, 0.40), (2310.0, 40.0, 0.45)),
    ),
}


def reflectance(materials: tuple[str, ...], wavelengths_nm: tuple[float, ...]) -> Spectrum:
    """Reflectance in [0, 1] of each material at each wavelength, (material, band).

    Args:
        materials: names out of `MATERIALS`.
        wavelengths_nm: band centres within 350 to 2550 nm.
    """
    nm = np.asarray(wavelengths_nm, dtype=np.float64)
    curves = np.stack([MATERIALS[name].reflectance(nm) for name in materials])
    # six digits are beyond any sensor and below what exp differs by between math libraries
    return np.clip(curves, 0.0, 1.0).round(6)
