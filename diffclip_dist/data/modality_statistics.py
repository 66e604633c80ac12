"""Statistics of a modality in one scene, kept with what learned from that scene."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from diffclip_dist.data.schema import ModalitySchema
from shards.archive.manifest import ModalityRecord, SceneRecord

# Scenes whose statistics an encoder keeps; with more, evenly spread ones
MOST_SCENES: Final = 16


@dataclass(frozen=True)
class ModalityStatistics:
    """Mean and standard deviation of each band over the valid pixels of a scene, to six digits.

    Attributes:
        key: names the modality and its bands, see `ModalitySchema.key`.
        scene: name of the scene.
        mean: one a band, in the units of the archive.
        std: one a band, 0 where the band is constant.
    """

    key: str
    scene: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, record: ModalityRecord, scene: str) -> "ModalityStatistics":
        """Those of an archived modality."""
        constant = np.isin(np.arange(record.bands) + 1, record.constant_bands)
        std = np.where(constant, 0.0, record.std)
        mean, deviation = (tuple(float(f"{value:.6g}") for value in values) for values in (record.mean, std))
        return cls(ModalitySchema.of(record).key, scene, mean, deviation)


def statistics_of(scenes: Sequence[SceneRecord]) -> tuple[ModalityStatistics, ...]:
    """Statistics of every modality of `MOST_SCENES` evenly spread scenes, or of all where there are fewer."""
    places = np.unique(np.linspace(0, len(scenes) - 1, min(len(scenes), MOST_SCENES)).astype(np.int64)).tolist()
    chosen = [scenes[place] for place in places]
    return tuple(ModalityStatistics.of(modality, scene.name) for scene in chosen for modality in scene.modalities)
