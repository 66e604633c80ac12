"""Which bands of a scene stand for the bands that an encoder or a classifier knows.

Modalities are matched by name, and their bands by centre wavelength. Where the wavelengths of either side are unknown,
there is nothing to compare, and the numbers of bands must agree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from diffclip_dist.data.schema import ModalitySchema
from shards.archive.archive import WHOLE, ReadableScene, Scene
from shards.archive.manifest import ModalityRecord, SceneRecord
from shards.band_tolerance import REACH, tolerance_nm
from shards.errors import BadInput

Reals = npt.NDArray[np.float64]
Value = TypeVar("Value")


@dataclass(frozen=True)
class BandMatch:
    """A modality of a scene and what it stands for.

    Attributes:
        known: the known modality.
        bands: of the scene's modality, from 0, one for each known band.
        mapped: whether the bands were picked by `map_bands`; else they agree as they are.
    """

    known: ModalitySchema
    bands: tuple[int, ...]
    mapped: bool


@dataclass(frozen=True)
class PickedScene:
    """A scene of which some bands are read, as if it had these alone.

    Attributes:
        scene: the scene.
        record: its record with the picked bands alone.
        picked: modality name to bands, from 0; other modalities are read whole.
    """

    scene: ReadableScene
    record: SceneRecord
    picked: Mapping[str, tuple[int, ...]]

    def read(self, modalities: tuple[str, ...] | None = None, rows: slice = WHOLE, cols: slice = WHOLE) -> Scene:
        """Reads some of its modalities, rows and columns; None takes all modalities."""
        part = self.scene.read(modalities, rows, cols)
        values = {
            name: array[..., list(self.picked[name])] if name in self.picked else array
            for name, array in part.values.items()
        }
        return replace(part, record=self.record, values=values)


def match_modalities(
    known: Sequence[ModalitySchema], record: SceneRecord, knower: str, map_bands: bool
) -> dict[str, BandMatch]:
    """The known modality and its bands for each modality of a scene that has one of that name.

    A band agrees with the known one if it lies within half the median spacing of the known bands. That is at least
    `LEAST_TOLERANCE_NM` and at most `REACH` of the wavelength.

    Args:
        known: what an encoder or a classifier knows; several may go by one name.
        record: the scene.
        knower: the encoder or the classifier, for messages.
        map_bands: where bands disagree, take the nearest to each known one, at most `REACH` of its wavelength away.

    Raises:
        BadInput: bands disagree, or there is none near enough.
    """
    return {
        modality.name: _match(named, modality, f"scene {record.name}: modality {modality.name}", knower, map_bands)
        for modality in record.modalities
        if (named := [schema for schema in known if schema.name == modality.name])
    }


def pick_bands(scene: ReadableScene, matches: Mapping[str, BandMatch]) -> ReadableScene:
    """The scene with its mapped bands alone; the scene itself where none are mapped."""
    picked = {name: match.bands for name, match in matches.items() if match.mapped}
    return PickedScene(scene, pick_record(scene.record, matches), picked) if picked else scene


def pick_record(record: SceneRecord, matches: Mapping[str, BandMatch]) -> SceneRecord:
    """A scene's record with its mapped bands alone, at the known wavelengths that they stand for."""
    modalities = []
    for modality in record.modalities:
        match = matches.get(modality.name)
        modalities.append(_picked(modality, match) if match is not None and match.mapped else modality)
    return replace(record, modalities=tuple(modalities))


def _match(
    named: Sequence[ModalitySchema], modality: ModalityRecord, where: str, knower: str, map_bands: bool
) -> BandMatch:
    own = ModalitySchema.of(modality)
    in_order = tuple(range(own.bands))
    of_same_number = [schema for schema in named if schema.bands == own.bands]
    for schema in of_same_number:
        if schema.key == own.key:
            return BandMatch(schema, in_order, mapped=False)
    for schema in of_same_number:
        if not np.any(_apart_nm(schema, own, in_order) > _tolerance_nm(schema)):
            return BandMatch(schema, in_order, mapped=False)
    comparable = [schema for schema in named if schema.wavelengths_nm and own.wavelengths_nm]
    if map_bands and comparable:
        nearest = min(comparable, key=lambda schema: float(np.max(_apart_nm(schema, own, _nearest(schema, own)))))
        return _mapped(nearest, own, where, knower)
    remedy = "; --map-bands takes the nearest by wavelength" if comparable else ""
    if not of_same_number:
        numbers = " or ".join(str(schema.bands) for schema in named)
        raise BadInput(f"{where}: has {own.bands} bands, and {knower} expects {numbers}{remedy}")
    closest = min(of_same_number, key=lambda schema: float(np.max(_apart_nm(schema, own, in_order))))
    faults = _faults(closest, own, in_order, _tolerance_nm(closest))
    raise BadInput(f"{where}: {knower} has other wavelengths: {faults}{remedy}")


def _mapped(known: ModalitySchema, own: ModalitySchema, where: str, knower: str) -> BandMatch:
    """The nearest band to each known one."""
    bands = _nearest(known, own)
    reach_nm = REACH * np.array(known.wavelengths_nm)
    if np.any(_apart_nm(known, own, bands) > reach_nm):
        faults = _faults(known, own, bands, reach_nm)
        raise BadInput(f"{where}: --map-bands: no band is near enough to one that {knower} has: {faults}")
    return BandMatch(known, bands, mapped=True)


def _nearest(known: ModalitySchema, own: ModalitySchema) -> tuple[int, ...]:
    apart_nm = np.abs(np.array(own.wavelengths_nm)[None] - np.array(known.wavelengths_nm)[:, None])
    return tuple(int(band) for band in apart_nm.argmin(axis=1))


def _apart_nm(known: ModalitySchema, own: ModalitySchema, bands: Sequence[int]) -> Reals:
    """How far the bands lie off the known ones; 0 where the wavelengths of either are unknown."""
    if known.wavelengths_nm is None or own.wavelengths_nm is None:
        return np.zeros(known.bands)
    apart_nm: Reals = np.abs(np.array(own.wavelengths_nm)[list(bands)] - np.array(known.wavelengths_nm))
    return apart_nm


def _tolerance_nm(known: ModalitySchema) -> Reals:
    """How far a band may lie off each known one and still agree."""
    if known.wavelengths_nm is None:
        return np.zeros(known.bands)
    return tolerance_nm(known.wavelengths_nm)


def _faults(known: ModalitySchema, own: ModalitySchema, bands: Sequence[int], allowed_nm: Reals) -> str:
    """The first band that lies too far off the known one, and how many more do."""
    assert known.wavelengths_nm is not None
    assert own.wavelengths_nm is not None
    wrong = np.flatnonzero(_apart_nm(known, own, bands) > allowed_nm)
    place = int(wrong[0])
    band = bands[place]
    more = f", and {len(wrong) - 1} more bands disagree" if len(wrong) > 2 else ""
    more = ", and 1 more band disagrees" if len(wrong) == 2 else more
    return (
        f"band {band + 1} lies at {own.wavelengths_nm[band]:g} nm, expected band {place + 1} at "
        f"{known.wavelengths_nm[place]:g} nm, at most {allowed_nm[place]:.3g} nm off{more}"
    )


def _picked(modality: ModalityRecord, match: BandMatch) -> ModalityRecord:
    def values(of_bands: tuple[Value, ...]) -> tuple[Value, ...]:
        return tuple(of_bands[band] for band in match.bands)

    def numbers(bands: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(number for number, band in enumerate(match.bands, start=1) if band + 1 in bands)

    return replace(
        modality,
        bands=len(match.bands),
        wavelengths_nm=match.known.wavelengths_nm,
        fwhm_nm=None if modality.fwhm_nm is None else values(modality.fwhm_nm),
        bad_bands=numbers(modality.bad_bands),
        mean=values(modality.mean),
        std=values(modality.std),
        constant_bands=numbers(modality.constant_bands),
        band_names=None if modality.band_names is None else values(modality.band_names),
        scalings=tuple(replace(one, scale=values(one.scale), offset=values(one.offset)) for one in modality.scalings),
    )
