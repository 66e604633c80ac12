"""What training samples from: an opened archive, its scenes by sensor combination, and the order of its samples."""

from dataclasses import dataclass

from diffclip_dist.data.order import GlobalOrder
from diffclip_dist.data.order_config import OrderConfig
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.data.sensors import SensorGroup, all_modalities, group_scenes
from shards.archive.archive import Archive


@dataclass(frozen=True)
class TrainingData:
    """An archive with the order in which training takes samples from it. It can be sent to another process.

    Attributes:
        archive: read by tiles.
        window: side of a window in pixels.
        groups: the archive's scenes by sensor combination.
        order: of the samples.
    """

    archive: Archive
    window: int
    groups: tuple[SensorGroup, ...]
    order: GlobalOrder

    @classmethod
    def of(cls, archive: Archive, window: int, order: OrderConfig) -> "TrainingData":
        """Groups the scenes and lays out the order; reads no file.

        Raises:
            BadInput: the window is too wide for a scene's halo, or no sensor has enough pixels for a global batch.
        """
        groups = group_scenes(archive.manifest, window)
        return cls(archive, window, groups, GlobalOrder([group.tiles.valid_pixels for group in groups], order))

    @property
    def modalities(self) -> tuple[ModalitySchema, ...]:
        """Every modality of the scenes once, in order of first appearance."""
        return all_modalities(self.groups)
