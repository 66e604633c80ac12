"""A scene prepared for an encoder: shared modalities, standardised values, and the grid of windows.

No label is used here.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.data.windows import SceneWindows
from diffclip_dist.feature_extraction.band_match import match_modalities
from diffclip_dist.feature_extraction.bands_only import BandsOnly, FeatureEncoder, device_of, window_side
from diffclip_dist.feature_extraction.feature_config import FeatureConfig
from diffclip_dist.feature_extraction.reading import ReadPixels, read_pixels
from diffclip_dist.feature_extraction.views import Grid
from diffclip_dist.model.encoder import MultimodalEncoder
from shards.archive.archive import Scene
from shards.archive.manifest import ModalityRecord, SceneRecord
from shards.errors import BadInput
from shards.nearest import any_you_mean

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SceneView:
    """A scene as a classifier sees it.

    Attributes:
        windows: where windows are cut.
        grid: which of them its pixels are read from.
        valid: modality name to bool (row, col), where it has data; only modalities that the scene has.
        present: bool (row, col), where any modality has data.
        origin: row and column of the scene where it begins; None for patches side by side.
    """

    windows: SceneWindows
    grid: Grid
    valid: Mapping[str, Mask]
    present: Mask
    origin: tuple[int, int] | None = (0, 0)

    def complete_among(self, pixels: Mask) -> Mask:
        """Those of the given pixels, bool (row, col), where every modality of the scene has data.

        Where there is no such pixel, those where any modality has.
        """
        complete = np.logical_and.reduce([pixels, *self.valid.values()])
        return complete if complete.any() else pixels & self.present

    def has_exactly(self, names: Collection[str]) -> Mask:
        """bool (row, col), where these modalities have data and no other has."""
        if not set(names) <= self.valid.keys():
            return np.zeros_like(self.present)
        masks = [valid if name in names else ~valid for name, valid in self.valid.items()]
        exactly: Mask = np.logical_and.reduce(masks)
        return exactly

    def only(self, names: Collection[str]) -> "SceneView":
        """The scene as if it had these modalities alone."""
        valid = {name: mask for name, mask in self.valid.items() if name in names}
        present = np.logical_or.reduce(list(valid.values())) if valid else np.zeros_like(self.present)
        return SceneView(self.windows.only(names), self.grid, valid, present, self.origin)


def read_sample(encoder: FeatureEncoder, scene: SceneView, among: Mask, config: FeatureConfig) -> ReadPixels:
    """Features of some of the given pixels: those of a limited number of windows, evenly spread over a scene."""
    rows, cols = np.nonzero(among)
    centre_rows, centre_cols = scene.grid.centres(rows, cols)
    centres = centre_rows * scene.grid.width + centre_cols
    kept = np.unique(centres)
    kept = kept[np.linspace(0, len(kept) - 1, min(len(kept), config.statistics_windows)).astype(np.int64)]
    sampled = np.zeros_like(scene.present)
    in_kept = np.isin(centres, kept)
    sampled[rows[in_kept], cols[in_kept]] = True
    return ReadPixels.joined(list(read_pixels(encoder, scene.windows, scene.grid, sampled, config)))


def encoder_for_pattern(encoder: FeatureEncoder, names: Collection[str]) -> FeatureEncoder:
    """The encoder for pixels that have data of these modalities alone; parameters are shared, not copied."""
    schemas = [schema for schema in encoder.modalities if schema.name in names]
    if isinstance(encoder, MultimodalEncoder):
        return encoder.for_modalities(schemas)
    return BandsOnly(schemas).to(device_of(encoder))


def encoder_for_scene(encoder: MultimodalEncoder, record: SceneRecord, source: str) -> MultimodalEncoder:
    """The part of an encoder that a scene needs: its modalities, in the scene's order, and what they share.

    An encoder with the ``wavelength`` stem takes every modality, known to it or not.

    Args:
        encoder: may know other sensors too.
        record: the scene.
        source: where the encoder is from, for messages.

    Raises:
        BadInput: they share no modality, or one of the scene's modalities goes by a name that the encoder knows with
            other bands only, see `match_modalities`.
    """
    if encoder.any_sensor:
        return encoder.for_modalities([ModalitySchema.of(m) for m in record.modalities]).eval().requires_grad_(False)
    matches = match_modalities(encoder.modalities, record, source, map_bands=False)
    schemas = [match.known for match in matches.values()]
    if not schemas:
        known = [schema.name for schema in encoder.modalities]
        theirs = [modality.name for modality in record.modalities]
        raise BadInput(
            f"{source}: knows the modalities {', '.join(known)}, and scene {record.name} has {', '.join(theirs)}: none "
            f"is shared{any_you_mean(theirs, known)}"
        )
    with torch.random.fork_rng(devices=[]):
        part = MultimodalEncoder(encoder.config, schemas)
    weights = encoder.state_dict()
    part.load_state_dict({name: weights[name] for name in part.state_dict()})
    return part.eval().requires_grad_(False)


def view_scene(
    scene: Scene,
    modalities: Sequence[ModalityRecord],
    encoder: FeatureEncoder,
    config: FeatureConfig,
    origin: tuple[int, int] | None = (0, 0),
) -> SceneView:
    """Standardises a scene for an encoder.

    Args:
        scene: values of the scene, or of a block of it.
        modalities: statistics to standardise with; those of the scene that are not among them are left out, and those
            that the scene lacks are missing.
        encoder: sets the window.
        config: sets the stride.
        origin: row and column of the whole scene where these values begin; None for patches side by side.
    """
    known = {schema.name for schema in encoder.modalities}
    used = [modality for modality in modalities if modality.name in known]
    window = window_side(encoder)
    height, width = next(iter(scene.valid.values())).shape
    record = replace(scene.record, height=height, width=width, modalities=tuple(used))
    windows = SceneWindows(scene, record, window, device_of(encoder))
    valid = {modality.name: scene.valid[modality.name] for modality in used if modality.name in scene.valid}
    present = np.logical_or.reduce(list(valid.values())) if valid else np.zeros((height, width), dtype=np.bool_)
    return SceneView(windows, Grid(height, width, window, min(config.stride, window)), valid, present, origin)
