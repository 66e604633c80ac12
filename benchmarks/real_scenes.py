"""The real scenes that are measured where they are at hand, with what their files do not say of themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from shards.archive.archive import Scene
from shards.archive.manifest import ModalityRecord
from shards.scene.sensors import SENSORS


@dataclass(frozen=True)
class Added:
    """What the files of a modality do not say of themselves."""

    wavelengths_nm: tuple[float, ...] | None = None
    sensor: str | None = None
    surface_height: bool = False


def _evenly(count: int, first_nm: float, last_nm: float) -> Added:
    return Added(tuple(np.linspace(first_nm, last_nm, count).tolist()))


# folder, then modality
REAL: Final[Mapping[str, Mapping[str, Added]]] = MappingProxyType(
    {
        "enmap_potsdam": {},
        "s2_dem": {"s2": Added(sensor="sentinel2")},
        "muufl_crop": {"hsi": _evenly(64, 375.0, 1050.0), "dsm": Added(surface_height=True)},
        "samson": {"hsi": _evenly(156, 401.0, 889.0)},
        "rs_lsat_srtm": {"optical": Added(sensor="landsat5")},
        "idtrees_osbs": {"hsi": _evenly(369, 383.0, 2512.0), "chm": Added(surface_height=True)},
    }
)


def completed(scene: Scene, added: Mapping[str, Added]) -> Scene:
    """The scene with what its files leave open."""
    records = tuple(_with(one, added.get(one.name, Added())) for one in scene.record.modalities)
    return replace(scene, record=replace(scene.record, modalities=records))


def _with(record: ModalityRecord, added: Added) -> ModalityRecord:
    wavelengths_nm, fwhm_nm = added.wavelengths_nm or record.wavelengths_nm, record.fwhm_nm
    if added.sensor is not None:
        sensor = SENSORS[added.sensor]
        places = sensor.places(record.bands)
        assert places is not None
        wavelengths_nm = tuple(sensor.centres_nm[place] for place in places)
        fwhm_nm = tuple(sensor.widths_nm[place] for place in places)
    return replace(
        record,
        wavelengths_nm=wavelengths_nm,
        fwhm_nm=fwhm_nm,
        sensor=added.sensor,
        surface_height=added.surface_height,
    )
