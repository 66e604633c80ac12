"""Reflectance of water bodies from what is dissolved and suspended in them.

The model is that of deep water in Lee et al. (1999, Applied Optics 38, 3831) with the surface's reflectance and the
constants of Gordon et al. (1988, J. Geophys. Res. 93, 10909). Pure water absorbs as measured by Pope and Fry (1997,
Applied Optics 36, 8710) to 720 nm and Kou, Labrie and Chylek (1993, Applied Optics 32, 3531) beyond, and scatters as in
Morel (1974). Phytoplankton absorbs in the form of Bricaud et al. (1995, J. Geophys. Res. 100, 13321), its two peaks
drawn as Gaussians.
"""

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]

# wavelength in nm, absorption of pure water in 1/m
_ABSORPTION = np.array(
    [
        (400, 0.0066), (420, 0.0045), (440, 0.0064), (460, 0.0098), (480, 0.0127), (500, 0.0204), (520, 0.0409),
        (540, 0.0474), (560, 0.0619), (580, 0.0896), (600, 0.222), (620, 0.276), (640, 0.311), (660, 0.410),
        (680, 0.465), (700, 0.624), (720, 1.23), (740, 2.4), (760, 2.6), (780, 2.4), (800, 2.0), (820, 2.5), (850, 4.3),
        (880, 5.6), (900, 6.8), (930, 17.0), (970, 45.0), (1000, 36.0), (1050, 16.0), (1100, 19.0), (1200, 104.0),
        (1300, 110.0), (1400, 1240.0), (1450, 2600.0), (1600, 670.0), (1700, 500.0), (1900, 8000.0), (1950, 12000.0),
        (2200, 1650.0), (2450, 6500.0),
    ]
)  # fmt: skip


def water_reflectance(nm: Reals, chlorophyll: Reals, sediment: Reals, dissolved: Reals, surface: Reals) -> Reals:
    """Reflectance (draw, wavelength) of deep water.

    Args:
        nm: wavelengths, 400 to 2450.
        chlorophyll: of phytoplankton in mg/m3, one a draw.
        sediment: suspended matter in g/m3.
        dissolved: absorption of dissolved organic matter at 440 nm in 1/m.
        surface: reflectance of the surface itself, the same at all wavelengths: sky and sun glint.
    """
    chl, tsm, yellow = chlorophyll[:, None], sediment[:, None], dissolved[:, None]
    peaks = np.exp(-0.5 * ((nm - 443.0) / 40.0) ** 2) + 0.5 * np.exp(-0.5 * ((nm - 675.0) / 14.0) ** 2)
    decrease = np.exp(-0.015 * (nm - 440.0))
    pure = np.exp(np.interp(nm, _ABSORPTION[:, 0], np.log(_ABSORPTION[:, 1])))
    absorption = pure + 0.05 * chl**0.65 * peaks + yellow * decrease + 0.03 * tsm * np.exp(-0.011 * (nm - 440.0))
    # half of what molecules scatter, and some 2 % of what particles scatter, goes back
    scattering = 0.00144 * (nm / 500.0) ** -4.32 + (0.002 * chl**0.62 + 0.012 * tsm) * (550.0 / nm) ** 0.7
    u = scattering / (absorption + scattering)
    below = (0.0895 + 0.1247 * u) * u
    leaving: Reals = np.pi * 0.52 * below / (1.0 - 1.7 * below)
    return leaving + surface[:, None]
