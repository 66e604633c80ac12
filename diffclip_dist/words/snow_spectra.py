"""Reflectance of snow from the size of its grains.

Kokhanovsky and Zege (2004, Applied Optics 43, 1589): exp(-3.62 sqrt(d (4 pi k / wavelength + soot))), here with the
imaginary part k of the refractive index of ice rounded from Warren and Brandt (2008, J. Geophys. Res. 113, D14220).
"""

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]

# wavelength in nm, imaginary part of the refractive index
_IMAGINARY = np.array(
    [
        (400, 2e-11), (500, 6e-10), (600, 5.7e-9), (700, 2.9e-8), (800, 1.3e-7), (900, 4.2e-7), (1000, 1.6e-6),
        (1030, 2.3e-6), (1100, 1.8e-6), (1200, 7.5e-6), (1300, 1.3e-5), (1400, 2.0e-5), (1500, 5.6e-4), (1600, 2.9e-4),
        (1700, 1.7e-4), (1800, 1.2e-4), (1900, 4.1e-4), (2000, 1.6e-3), (2100, 8.5e-4), (2250, 2.1e-4), (2450, 7.5e-4),
    ]
)  # fmt: skip


def snow_reflectance(nm: Reals, grain_mm: Reals, soot_per_mm: Reals) -> Reals:
    """Reflectance (draw, wavelength) of deep snow.

    Args:
        nm: wavelengths, 400 to 2450.
        grain_mm: effective diameter of the grains in mm, one a draw.
        soot_per_mm: absorption of impurities in 1/mm, the same at all wavelengths.
    """
    imaginary = np.exp(np.interp(nm, _IMAGINARY[:, 0], np.log(_IMAGINARY[:, 1])))
    per_mm = 4.0 * np.pi * imaginary / (nm * 1e-6) + soot_per_mm[:, None]
    reflectance: Reals = np.exp(-3.62 * np.sqrt(grain_mm[:, None] * per_mm))
    return reflectance
