"""Band centres and widths of known sensors, for files that carry none (`sensor:` in scene.yaml).

Sources: Sentinel-2 from ESA's spectral responses of S2A; Landsat bands and the calibration of 8-bit counts of TM and
ETM+ from Chander, Markham and Helder (2009, Remote Sens. Environ. 113, 893) and the USGS Landsat 8-9 handbook;
PlanetScope, RapidEye, WorldView, GeoEye, QuickBird, IKONOS, Pleiades, SPOT, NAIP, MODIS and ASTER from their operators'
product sheets. Imaging spectrometers are given as evenly spaced in parts, within ten nanometres of their product
descriptions; their products carry the exact centres, which come first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from shards.nearest import did_you_mean


@dataclass(frozen=True)
class CountCalibration:
    """Turns 8-bit counts into reflectance at the top of the air, for a sun in the zenith: scale * count + offset."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]


@dataclass(frozen=True)
class Sensor:
    """The bands of a sensor.

    Attributes:
        bands: names of all bands, in the order in which its products hold them.
        centres_nm, widths_nm: one a band.
        layouts: the selections of bands that files commonly hold, each as places in `bands`; all bands is the first.
        counts: for sensors whose files may hold 8-bit counts.
    """

    bands: tuple[str, ...]
    centres_nm: tuple[float, ...]
    widths_nm: tuple[float, ...]
    layouts: tuple[tuple[int, ...], ...]
    counts: CountCalibration | None = None

    def places(self, count: int, names: Sequence[str] | None = None) -> tuple[int, ...] | None:
        """Which bands files hold, as places in `bands`; None where their number is none of this sensor's.

        Args:
            count: bands that the files hold.
            names: the files' names of them, where they have such; used where each is a band of the sensor.
        """
        if names is not None:
            plain = {_plain(band): place for place, band in enumerate(self.bands)}
            if all(_plain(name) in plain for name in names):
                return tuple(plain[_plain(name)] for name in names)
        return next((layout for layout in self.layouts if len(layout) == count), None)


def _plain(band: str) -> str:
    return band.upper().replace("_", "").replace(" ", "").replace("B0", "B")


def _sensor(text: str, *fewer: str, counts: CountCalibration | None = None) -> Sensor:
    """A sensor from ``name centre width`` of each band, and the names of the bands in layouts with fewer of them."""
    bands = [part.split() for part in text.split(",")]
    names = [name for name, _, _ in bands]
    return Sensor(
        tuple(names),
        tuple(float(centre) for _, centre, _ in bands),
        tuple(float(width) for _, _, width in bands),
        (tuple(range(len(names))), *(tuple(names.index(name) for name in layout.split()) for layout in fewer)),
        counts,
    )


def _spectrometer(*parts: tuple[int, float, float], width: float) -> Sensor:
    """An imaging spectrometer, evenly spaced in parts: number of bands, first and last centre."""
    centres = np.concatenate([np.linspace(first, last, count) for count, first, last in parts]).round(2)
    count = len(centres)
    names = tuple(f"B{band}" for band in range(1, count + 1))
    return Sensor(names, tuple(centres.tolist()), (width,) * count, (tuple(range(count)),))


_MSI: Final = (
    "B1 442.7 20, B2 492.4 65, B3 559.8 35, B4 664.6 30, B5 704.1 14, B6 740.5 14, B7 782.8 19, B8 832.8 105, "
    "B8A 864.7 21, B9 945.1 19, B10 1373.5 29, B11 1613.7 90, B12 2202.4 174"
)
_MSI_L2A: Final = "B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B11 B12"
_MSI_LAND: Final = "B2 B3 B4 B5 B6 B7 B8 B8A B11 B12"
_TM: Final = "B1 485 70, B2 560 80, B3 660 60, B4 830 140, B5 1650 200, B6 11450 2100, B7 2215 270"
_ETM: Final = "B1 482 65, B2 562 80, B3 661 60, B4 835 125, B5 1648 200, B6 11450 2100, B7 2206 260, B8 720 380"
_OLI: Final = (
    "B1 443 16, B2 482 60, B3 561 57, B4 655 38, B5 865 28, B6 1609 85, B7 2201 187, B8 590 172, B9 1373 20, "
    "B10 10895 590, B11 12005 1010"
)


def _calibration(
    radiance_scale: Sequence[float], radiance_offset: Sequence[float], sun: Sequence[float]
) -> CountCalibration:
    """From radiance in W m-2 sr-1 um-1 a count, and the sun's irradiance in W m-2 um-1; 0 for a thermal band."""
    factors = [np.pi / one if one else 0.0 for one in sun]
    return CountCalibration(
        tuple(scale * factor for scale, factor in zip(radiance_scale, factors, strict=True)),
        tuple(offset * factor for offset, factor in zip(radiance_offset, factors, strict=True)),
    )


_TM_COUNTS: Final = _calibration(
    (0.765827, 1.448189, 1.043976, 0.876024, 0.120354, 0.0, 0.065551),
    (-2.29, -4.29, -2.21, -2.39, -0.49, 0.0, -0.22),
    (1983.0, 1796.0, 1536.0, 1031.0, 220.0, 0.0, 83.44),
)
_ETM_COUNTS: Final = _calibration(
    (0.778740, 0.798819, 0.621654, 0.969291, 0.126220, 0.0, 0.043898, 0.975591),
    (-6.98, -7.20, -5.62, -6.07, -1.13, 0.0, -0.39, -5.68),
    (1997.0, 1812.0, 1533.0, 1039.0, 230.8, 0.0, 84.90, 1362.0),
)
_LANDSAT_LAND: Final = "B1 B2 B3 B4 B5 B7"

SENSORS: Final[Mapping[str, Sensor]] = MappingProxyType(
    {
        "sentinel2": _sensor(_MSI, _MSI_L2A, _MSI_LAND, "B2 B3 B4 B8"),
        "sentinel2_l1c": _sensor(_MSI),
        "sentinel2_l2a": _sensor(", ".join(b for b in _MSI.split(", ") if not b.startswith("B10")), _MSI_LAND),
        "landsat4": _sensor(_TM, _LANDSAT_LAND, counts=_TM_COUNTS),
        "landsat5": _sensor(_TM, _LANDSAT_LAND, counts=_TM_COUNTS),
        "landsat7": _sensor(_ETM, "B1 B2 B3 B4 B5 B6 B7", _LANDSAT_LAND, counts=_ETM_COUNTS),
        "landsat8": _sensor(_OLI, "B1 B2 B3 B4 B5 B6 B7 B8 B9", "B1 B2 B3 B4 B5 B6 B7", "B2 B3 B4 B5 B6 B7"),
        "landsat9": _sensor(_OLI, "B1 B2 B3 B4 B5 B6 B7 B8 B9", "B1 B2 B3 B4 B5 B6 B7", "B2 B3 B4 B5 B6 B7"),
        "planetscope": _sensor(
            "B1 443 20, B2 490 50, B3 531 36, B4 565 36, B5 610 20, B6 665 31, B7 705 15, B8 865 40", "B2 B4 B6 B8"
        ),
        "rapideye": _sensor("B1 475 70, B2 555 70, B3 658 55, B4 710 40, B5 805 90"),
        "worldview2": _sensor(
            "B1 427 54, B2 478 64, B3 546 80, B4 608 42, B5 659 63, B6 724 40, B7 833 128, B8 949 184", "B2 B3 B5 B7"
        ),
        "worldview3": _sensor(
            "B1 427 54, B2 482 71, B3 547 79, B4 605 47, B5 661 70, B6 724 46, B7 832 140, B8 948 185, B9 1210 30, "
            "B10 1572 40, B11 1661 40, B12 1730 40, B13 2164 40, B14 2203 40, B15 2260 50, B16 2329 70",
            "B1 B2 B3 B4 B5 B6 B7 B8",
            "B2 B3 B5 B7",
        ),
        "geoeye1": _sensor("B1 484 62, B2 547 72, B3 676 42, B4 851 156"),
        "quickbird": _sensor("B1 485 70, B2 560 80, B3 660 60, B4 830 140"),
        "ikonos": _sensor("B1 480 71, B2 551 89, B3 665 66, B4 805 96"),
        "pleiades": _sensor("B1 490 120, B2 560 110, B3 650 120, B4 840 180"),
        "spot6": _sensor("B1 490 70, B2 560 70, B3 660 70, B4 825 130"),
        "naip": _sensor("R 650 80, G 560 80, B 465 80, N 845 110"),
        "modis": _sensor("B1 645 50, B2 859 35, B3 469 20, B4 555 20, B5 1240 20, B6 1640 24, B7 2130 50"),
        "aster": _sensor(
            "B1 556 80, B2 661 60, B3N 807 100, B4 1656 92, B5 2167 35, B6 2209 40, B7 2262 47, B8 2336 70, B9 2400 68",
            "B1 B2 B3N",
        ),
        "enmap": _spectrometer(
            (21, 418.2, 515.5), (10, 520.4, 566.2), (10, 571.7, 622.7), (10, 628.8, 686.1), (10, 692.9, 756.1),
            (10, 763.5, 831.9), (10, 839.8, 911.7), (10, 919.8, 993.1), (25, 902.3, 1163.8), (13, 1175.8, 1319.3),
            (6, 1331.5, 1391.0), (13, 1461.5, 1598.3), (12, 1609.5, 1728.4), (3, 1738.9, 1759.8), (21, 1939.4, 2122.4),
            (14, 2131.1, 2241.4), (13, 2249.7, 2346.1), (13, 2354.0, 2445.5),
            width=9.0,
        ),
        "emit": _spectrometer((285, 381.0, 2493.0), width=8.4),
        "prisma": _spectrometer((66, 402.0, 1010.0), (173, 920.0, 2497.0), width=11.0),
        "desis": _spectrometer((235, 401.9, 999.5), width=3.5),
        "hyperion": _spectrometer((70, 355.6, 1057.7), (172, 851.9, 2577.1), width=10.9),
        "aviris": _spectrometer(
            (32, 365.9, 667.5), (64, 655.5, 1263.1), (64, 1253.4, 1872.4), (64, 1866.8, 2496.2), width=9.8
        ),
        "aviris_ng": _spectrometer((425, 376.4, 2499.9), width=5.5),
    }
)  # fmt: skip


def known_sensor(name: str) -> str:
    """The name, if it is a key of `SENSORS`.

    Raises:
        ValueError: it is none; the message names the nearest.
    """
    if name not in SENSORS:
        raise ValueError(f"{name!r} is no known sensor{did_you_mean(name, SENSORS)} (known: {', '.join(SENSORS)})")
    return name
