"""What classical classifiers see of a pixel: tables (row, col, feature), made without labels.

Each description is learned from one scene and given of the same or another: statistics, noise and principal axes are
those of the scene that the shots are in. Modalities without data at a pixel are 0, which is the scene's mean.
"""

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from skimage.morphology import disk, reconstruction

from diffclip_dist.data.windows import SceneWindows, as_tensor, standardise
from diffclip_dist.feature_extraction.band_metric import fit_band_metric
from shards.archive.archive import Scene
from shards.archive.manifest import ModalityRecord

Table = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
# Learned from the first scene, given of the second
Describe = Callable[[Scene, Scene], Table]

# Sides of the squares that a spatial stack averages over
STACK_SIDES: Final = (3, 5)
# Principal axes of the spectra that profiles are made of, and radii in pixels of the discs
PROFILE_AXES: Final = 3
PROFILE_RADII: Final = (1, 2, 3, 4)


def present(scene: Scene) -> Mask:
    """bool (row, col), where any modality has data."""
    found: Mask = np.any(list(scene.valid.values()), axis=0)
    return found


def all_modalities(learned_from: Scene, scene: Scene) -> Table:
    """The standardised bands of all modalities."""
    return _standardised(scene, learned_from.record.modalities)


def spectra(learned_from: Scene, scene: Scene) -> Table:
    """The standardised bands of the modalities that have several."""
    several = [one for one in learned_from.record.modalities if one.bands > 1]
    return _standardised(scene, several or learned_from.record.modalities)


def noise_fraction(learned_from: Scene, scene: Scene) -> Table:
    """Components of most signal to noise (minimum noise fraction, Green et al. 1988), 15 at most."""
    record = learned_from.record
    metric = fit_band_metric(SceneWindows(learned_from, record, window=1), present(learned_from))
    table = torch.from_numpy(all_modalities(learned_from, scene))
    found: Table = metric.components(table.flatten(0, 1)).reshape(*table.shape[:2], -1).numpy()
    return found


def spatial_stack(learned_from: Scene, scene: Scene) -> Table:
    """Bands with their means and deviations over 3x3 and 5x5 pixels that have data."""
    table, known = all_modalities(learned_from, scene), present(scene)
    parts = [table]
    for side in STACK_SIDES:
        share = np.maximum(ndimage.uniform_filter(known.astype(np.float32), side, mode="constant"), 1e-6)[..., None]
        mean, square = (
            ndimage.uniform_filter(values * known[..., None], (side, side, 1), mode="constant") / share
            for values in (table, table**2)
        )
        parts += [mean, np.sqrt(np.maximum(square - mean**2, 0.0))]
    return np.concatenate(parts, axis=2)


def morphological_profiles(learned_from: Scene, scene: Scene) -> Table:
    """Extended morphological profiles: openings and closings by reconstruction (Benediktsson et al. 2005).

    Of the first principal axes of the spectra, and of each modality of one band.
    """
    known = present(learned_from)
    learned = spectra(learned_from, learned_from)[known].astype(np.float64)
    centre = learned.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov(learned - centre, rowvar=False).reshape(learned.shape[1], -1))
    projected = (spectra(learned_from, scene) - centre) @ axes[:, ::-1][:, :PROFILE_AXES]
    single = [one for one in learned_from.record.modalities if one.bands == 1]
    images = [*np.moveaxis(projected, 2, 0)]
    images += [*np.moveaxis(_standardised(scene, single), 2, 0)] if single else []
    scaled = [image / max(float(image.std()), 1e-6) for image in images]
    return np.stack([layer for image in scaled for layer in _profile(image)], axis=2).astype(np.float32)


def _profile(image: npt.NDArray[np.float64]) -> Iterable[npt.NDArray[np.float64]]:
    yield image
    for radius in PROFILE_RADII:
        disc = disk(radius)
        yield reconstruction(ndimage.grey_erosion(image, footprint=disc), image, method="dilation")
        yield reconstruction(ndimage.grey_dilation(image, footprint=disc), image, method="erosion")


def _standardised(scene: Scene, records: Iterable[ModalityRecord]) -> Table:
    parts = [
        standardise(as_tensor(scene.values[one.name]), as_tensor(scene.valid[one.name]), one).numpy() for one in records
    ]
    return np.concatenate(parts, axis=2)
