"""Measured and simulated spectra of ground materials, from the data files of the package earthlib.

The package (MIT) gathers the ICRAF-ISRIC soil library, urban spectra of Santa Barbara (UCSB), wood, litter and char of
the Joint Fire Science Program, spectra of the HyspIRI campaign and the USGS library version 7, and canopies simulated
with PROSAIL. Its code is not imported.
"""

import csv
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from diffclip_dist.words.words_unavailable import WordsUnavailable

Reals = npt.NDArray[np.float64]

PACKAGE: Final = "earthlib"
# Every spectrum here is sampled at these wavelengths in nanometres
GRID_NM: Final[Reals] = np.arange(400.0, 2451.0, 10.0)
_LEAF_AREA: Final = re.compile(r"v-LAI-([\d.]+)-")


@dataclass(frozen=True)
class LibrarySpectra:
    """Spectra of the library.

    Attributes:
        names: as the library has them, one a spectrum.
        groups: what each spectrum is of, such as ``soil`` or ``comp_shingle``.
        leaf_area: leaf area index of each simulated canopy, m2 of leaf over m2 of ground; NaN for all others.
        reflectance: 0 to 1, (spectrum, wavelength of `GRID_NM`).
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    leaf_area: Reals
    reflectance: Reals

    def of(self, groups: tuple[str, ...], leaf_area: tuple[float, float] | None = None) -> Reals:
        """Reflectance (spectrum, wavelength) of the spectra of some groups, of canopies within a range of leaf area."""
        chosen = np.isin(self.groups, groups)
        if leaf_area is not None:
            chosen &= (self.leaf_area >= leaf_area[0]) & (self.leaf_area < leaf_area[1])
        return self.reflectance[chosen]

    def subset(self, chosen: npt.NDArray[np.bool_]) -> "LibrarySpectra":
        """Some of the spectra, to hold others back."""
        places = np.flatnonzero(chosen)
        return LibrarySpectra(
            tuple(self.names[place] for place in places),
            tuple(self.groups[place] for place in places),
            self.leaf_area[places],
            self.reflectance[places],
        )


@cache
def read_library() -> LibrarySpectra:
    """All spectra of the installed package, on `GRID_NM`; straight lines fill the bands of water vapour that it lacks.

    Raises:
        WordsUnavailable: the package or a file of it is missing, or is not as expected.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise WordsUnavailable(f"class names: the package {PACKAGE} with its spectra is missing: pip install {PACKAGE}")
    folder = Path(found.origin).parent / "data"
    try:
        header = (folder / "spectra.sli.hdr").read_text(encoding="utf-8")
        with (folder / "spectra.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        listed = re.search(r"wavelength = \{([^}]*)\}", header)
        assert listed is not None
        wavelengths_nm = 1000.0 * np.array([float(part) for part in listed[1].split(",")])
        stored = np.fromfile(folder / "spectra.sli", "<f4").reshape(len(rows), len(wavelengths_nm))
    except (OSError, ValueError, AssertionError) as error:
        raise WordsUnavailable(f"class names: {folder}: not the spectra of {PACKAGE} 1.1 ({error})") from error
    order = np.argsort(wavelengths_nm)
    reflectance = np.stack([np.interp(GRID_NM, wavelengths_nm[order], one[order]) for one in stored])
    areas = [_LEAF_AREA.match(row["NAME"]) for row in rows]
    return LibrarySpectra(
        tuple(row["NAME"] for row in rows),
        tuple(row["LEVEL_3"] for row in rows),
        np.array([float(area[1]) if area else np.nan for area in areas]),
        np.clip(reflectance, 0.0, 1.0),
    )
