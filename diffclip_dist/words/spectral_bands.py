"""The bands of a scene that names are told by, gathered to groups of about 25 nm.

Shapes: P pixels, n draws, w wavelengths of the library's grid, b bands, G groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from diffclip_dist.words.spectral_library import GRID_NM, Reals
from diffclip_dist.words.words_unavailable import WordsUnavailable
from shards.archive.manifest import ModalityRecord

GROUP_NM: Final = 25.0
FIRST_NM, LAST_NM = 395.0, 2460.0
# Strong absorption by water vapour (and ozone-free windows in between), where a sensor sees little of the ground
VAPOUR_NM: Final = ((925.0, 970.0), (1340.0, 1470.0), (1780.0, 1990.0))
# Fewer groups tell no materials apart
LEAST_GROUPS: Final = 3
# Width of a band that nothing says the width of, as part of the distance to the next, and its bounds in nm
PART_OF_SPACING: Final = 0.7
WIDTH_NM: Final = (5.0, 100.0)


@dataclass(frozen=True)
class BandGroup:
    """Neighbouring bands of one modality.

    Attributes:
        modality: whose bands they are.
        bands: their places in the modality, from 0.
        centres_nm: one a band.
        widths_nm: full width at half maximum, one a band.
    """

    modality: str
    bands: tuple[int, ...]
    centres_nm: tuple[float, ...]
    widths_nm: tuple[float, ...]

    @property
    def centre_nm(self) -> float:
        """Mean of the bands' centres."""
        return sum(self.centres_nm) / len(self.centres_nm)


@dataclass(frozen=True)
class SpectralBands:
    """The groups of bands of all modalities that see reflected light.

    Attributes:
        groups: in the order of the modalities, in each by wavelength.
    """

    groups: tuple[BandGroup, ...]

    @classmethod
    def of(cls, modalities: Sequence[ModalityRecord]) -> "SpectralBands":
        """The groups of a scene's modalities.

        Raises:
            WordsUnavailable: no modality, or too few bands, have wavelengths in the range of the library.
        """
        groups: list[BandGroup] = []
        for modality in modalities:
            if modality.wavelengths_nm is None:
                continue
            centres = np.array(modality.wavelengths_nm)
            widths = np.array(modality.fwhm_nm) if modality.fwhm_nm is not None else _guessed_widths(centres)
            left_out = {*modality.bad_bands, *modality.constant_bands}
            cells: dict[int, list[int]] = {}
            for band in np.argsort(centres, kind="stable").tolist():
                if band + 1 not in left_out and _is_usable(float(centres[band])):
                    cells.setdefault(int(centres[band] // GROUP_NM), []).append(band)
            for bands in cells.values():
                groups.append(
                    BandGroup(
                        modality.name, tuple(bands), tuple(centres[bands].tolist()), tuple(widths[bands].tolist())
                    )
                )
        if not groups:
            raise WordsUnavailable(
                "class names: no modality has wavelengths between 400 and 2450 nm; give `sensor:` or `wavelengths:` in "
                "its scene.yaml"
            )
        if len(groups) < LEAST_GROUPS:
            raise WordsUnavailable(f"class names: {len(groups)} usable bands, expected at least {LEAST_GROUPS}")
        return cls(tuple(groups))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that have a group."""
        return tuple(dict.fromkeys(group.modality for group in self.groups))

    @property
    def centres_nm(self) -> Reals:
        """Centre of each group."""
        return np.array([group.centre_nm for group in self.groups])

    @property
    def response(self) -> Reals:
        """What each wavelength of the library's grid counts in each group, (w, G); columns have the sum 1."""
        columns = (
            np.mean([_response(*band) for band in zip(group.centres_nm, group.widths_nm, strict=True)], axis=0)
            for group in self.groups
        )
        return np.stack(list(columns), axis=1)

    def gathered(self, values: Mapping[str, Tensor]) -> Tensor:
        """Group means float32 (P, G) of values (P, b) of each modality; NaN where a band is missing."""
        means = [values[group.modality][:, list(group.bands)].double().mean(dim=1) for group in self.groups]
        return torch.stack(means, dim=1).float()


def _is_usable(centre_nm: float) -> bool:
    inside = FIRST_NM <= centre_nm <= LAST_NM
    return inside and not any(low <= centre_nm <= high for low, high in VAPOUR_NM)


def _guessed_widths(centres: Reals) -> Reals:
    """Widths of bands that nothing is said of, from the distance to the nearest other band."""
    if len(centres) == 1:
        return np.array([WIDTH_NM[0]])
    away = np.abs(centres[:, None] - centres[None, :])
    np.fill_diagonal(away, np.inf)
    widths: Reals = np.clip(PART_OF_SPACING * away.min(axis=1), *WIDTH_NM)
    return widths


def _response(centre_nm: float, width_nm: float) -> Reals:
    """A Gaussian of that full width at half maximum on the grid, at least as wide as its step."""
    deviation = max(width_nm, 8.0) / 2.355
    response = np.exp(-0.5 * ((GRID_NM - np.clip(centre_nm, GRID_NM[0], GRID_NM[-1])) / deviation) ** 2)
    shares: Reals = response / response.sum()
    return shares
