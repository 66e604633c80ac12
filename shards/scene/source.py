"""What a scene looks like before it is archived: anything that can be read block by block.

A reader of files, a public set and the generated scene all are a `SceneSource`; the archive builder knows nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.generic]
Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Scaling:
    """Turns file values into physical ones: scale * file value + offset.

    Attributes:
        scale: one a band.
        offset: one a band.
        files: how many files of the modality carry these.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    files: int = 1

    def of_bands(self, bands: tuple[int, ...]) -> "Scaling":
        """The same for some of the bands (from 1)."""
        return Scaling(
            tuple(self.scale[band - 1] for band in bands), tuple(self.offset[band - 1] for band in bands), self.files
        )

    def apply(self, values: Values, dtype: np.dtype[np.generic]) -> Values:
        """Physical values of file values (..., band), which hold every band of this scaling."""
        scaled: npt.NDArray[np.float64] = values * np.array(self.scale) + np.array(self.offset)
        return scaled.astype(dtype)


@dataclass(frozen=True)
class Modality:
    """One sensor's layer of a scene.

    Attributes:
        name: the user's name for it, such as ``hsi``.
        bands: number of bands, at least 1.
        dtype: dtype of its values, as NumPy names it (``int16``).
        wavelengths_nm: centre of each band in nanometres, where known.
        fwhm_nm: full width at half maximum of each band in nanometres, where known.
        bad_bands: bands (from 1, in this modality's own order) that the files themselves call bad.
        nodata: for integer dtypes, a value that no valid pixel holds, where the files declare one.
        band_names: name of each band, where files were stacked as bands.
        scalings: what was applied on reading; empty where values are as the files hold them.
        sensor: what measured it, a key of `shards.scene.sensors.SENSORS`, where the user says so.
        surface_height: True where its values are heights above the ground, or of a surface with what stands on it.
    """

    name: str
    bands: int
    dtype: str
    wavelengths_nm: tuple[float, ...] | None = None
    fwhm_nm: tuple[float, ...] | None = None
    bad_bands: tuple[int, ...] = ()
    nodata: int | None = None
    band_names: tuple[str, ...] | None = None
    scalings: tuple[Scaling, ...] = ()
    sensor: str | None = None
    surface_height: bool = False


@dataclass(frozen=True)
class Classes:
    """The meaning of a label map.

    Attributes:
        names: class id to class name, at least one; ids from 1, as labels hold them.
        descriptions: class id to a longer text, for the classes that have one.
        official_split: whether the scene brings its own training and test pixels.
        id_shift: class id here minus the user's; 1 where the user has a class 0, since 0 stands for unlabelled here.
    """

    names: Mapping[int, str]
    descriptions: Mapping[int, str] = field(default_factory=dict)
    official_split: bool = False
    id_shift: int = 0


class SceneSource(Protocol):
    """A scene that can be read block by block; every modality lies on the same grid."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str:
        """Text that differs wherever the pixels may differ; an interrupted build goes on only with the same."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def modalities(self) -> tuple[Modality, ...]: ...

    @property
    def classes(self) -> Classes | None: ...

    @property
    def crs_wkt(self) -> str | None: ...

    @property
    def transform(self) -> tuple[float, float, float, float, float, float] | None:
        """Affine (a, b, c, d, e, f): x = a*col + b*row + c, y = d*col + e*row + f."""

    @property
    def generated(self) -> bool:
        """True where the scene is made up; every output says so."""

    def read(self, modality: str, rows: slice, cols: slice) -> tuple[Values, Mask]:
        """Values (row, col, band) in the modality's dtype, and where they are valid (row, col)."""

    def read_labels(self, rows: slice, cols: slice) -> Labels:
        """Class ids (row, col); 0 is unlabelled."""

    def read_split(self, rows: slice, cols: slice) -> tuple[Labels, Labels]:
        """The official training and test maps (row, col), class ids, 0 where a pixel is in neither."""
