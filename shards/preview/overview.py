"""An overview of a scene of any size: every n-th pixel of each modality, and the mean spectrum of each class."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shards.archive.archive import Archive
from shards.archive.manifest import ModalityRecord, SceneRecord
from shards.preview.thinning import thinned_parts, thinned_shape, thinning_step
from shards.scene.source import Labels, Mask

LARGEST_SIDE = 1024
# nanometres of red, green and blue light; of near infrared, red and green for sensors without blue
TRUE_COLOUR = (650.0, 550.0, 470.0)
FALSE_COLOUR = (860.0, 650.0, 550.0)
# a band further than this from a colour's wavelength does not show the colour
COLOUR_REACH_NM = 40.0


@dataclass(frozen=True)
class ShownBands:
    """Which bands (from 0) a picture shows, as red, green and blue or as one grey, and the title."""

    bands: tuple[int, ...]
    title: str


@dataclass(frozen=True)
class Overview:
    """An overview of a scene.

    Attributes:
        record: the scene.
        step: n, where every n-th row and column is kept.
        shown: per modality, the bands shown.
        pictures: per modality (row, col, shown band), NaN where missing.
        valid: per modality (row, col).
        labels: class ids (row, col), 0 is unlabelled; None for a scene without labels.
        spectra: per modality of several bands, class id to its mean value in each band; id 0 is all valid pixels.
    """

    record: SceneRecord
    step: int
    shown: dict[str, ShownBands]
    pictures: dict[str, npt.NDArray[np.float32]]
    valid: dict[str, Mask]
    labels: Labels | None
    spectra: dict[str, dict[int, npt.NDArray[np.float64]]]


def shown_bands(record: ModalityRecord) -> ShownBands:
    """True colour where the wavelengths allow it, false colour with near infrared next, else bands spread evenly."""
    if record.bands < 3:
        return ShownBands((0,), record.name if record.bands == 1 else f"{record.name}, band 1")
    if record.wavelengths_nm is not None:
        centres = np.array(record.wavelengths_nm, dtype=np.float64)
        usable = centres.copy()
        usable[np.array(record.constant_bands, dtype=np.int64) - 1] = np.inf
        for wanted, kind in ((TRUE_COLOUR, "true colour"), (FALSE_COLOUR, "false colour (near infrared as red)")):
            nearest = tuple(int(np.abs(usable - nm).argmin()) for nm in wanted)
            if all(abs(usable[band] - nm) <= COLOUR_REACH_NM for band, nm in zip(nearest, wanted, strict=True)):
                return ShownBands(nearest, f"{record.name}, {kind}")
    spread = tuple(round(record.bands * part) for part in (5 / 6, 3 / 6, 1 / 6))
    spread = tuple(min(band, record.bands - 1) for band in spread)
    return ShownBands(spread, f"{record.name}, false colour (bands {', '.join(str(band + 1) for band in spread)})")


def overview(archive: Archive, name: str) -> Overview:
    """Reads a scene shard by shard, so that one of any size takes little memory.

    Raises:
        BadInput: there is no such scene.
        DamagedArchive: a chunk cannot be decoded.
    """
    record = archive.scene(name)
    step = thinning_step(record, LARGEST_SIDE)
    shape = thinned_shape(record, step)
    shown = {modality.name: shown_bands(modality) for modality in record.modalities}
    pictures = {name: np.full((*shape, len(bands.bands)), np.nan, np.float32) for name, bands in shown.items()}
    valid: dict[str, Mask] = {name: np.zeros(shape, dtype=np.bool_) for name in shown}
    labels = np.zeros(shape, dtype=np.uint16) if record.classes else None
    sums = {
        modality.name: {class_id: np.zeros(modality.bands) for class_id in record.classes}
        for modality in record.modalities
        if modality.bands > 1
    }
    counts = {name: dict.fromkeys(record.classes, 0) for name in sums}
    for one in thinned_parts(archive[name], step):
        scene = one.part
        for modality, bands in shown.items():
            valid[modality][one.place] = scene.valid[modality][one.thin]
            pictures[modality][one.place] = scene.values[modality][one.thin][..., list(bands.bands)]
            pictures[modality][one.place][~scene.valid[modality][one.thin]] = np.nan
        if labels is not None and scene.labels is not None:
            labels[one.place] = scene.labels[one.thin]
            for modality, by_class in sums.items():
                for class_id in by_class:
                    chosen = (scene.labels == class_id) & scene.valid[modality]
                    by_class[class_id] += scene.values[modality][chosen].sum(axis=0, dtype=np.float64)
                    counts[modality][class_id] += int(np.count_nonzero(chosen))
    spectra = {
        modality: {
            0: np.array(record.modality(modality).mean),
            **{c: total / counts[modality][c] for c, total in by_class.items() if counts[modality][c]},
        }
        for modality, by_class in sums.items()
    }
    return Overview(record, step, shown, pictures, valid, labels, spectra)
