"""Scenes of one sensor combination: those that can share a batch because they pass through the same stems."""

from dataclasses import dataclass, replace

from diffclip_dist.data.schema import ModalitySchema
from shards.archive.manifest import Manifest, SceneRecord
from shards.archive.manifest_tables import tile_table
from shards.archive.tile_table import TileTable
from shards.errors import BadInput


@dataclass(frozen=True)
class SensorGroup:
    """Scenes with the same modalities and tiles of the same size.

    Attributes:
        schemas: the modalities, in the scenes' order.
        tile_side: side of a tile with its halo, in pixels.
        halo: pixels around a tile's core.
        scenes: scene name to its record, without tiles.
        tiles: all their tiles, each with a valid pixel, in the manifest's order.
    """

    schemas: tuple[ModalitySchema, ...]
    tile_side: int
    halo: int
    scenes: dict[str, SceneRecord]
    tiles: TileTable


def group_scenes(manifest: Manifest, window: int) -> tuple[SensorGroup, ...]:
    """Groups an archive's scenes by sensor combination, in order of first appearance.

    Raises:
        BadInput: a scene's halo is too small for the window.
    """
    members: dict[tuple[tuple[str, ...], int, int], list[SceneRecord]] = {}
    for scene in manifest.scenes:
        if window > 2 * scene.halo + 1:
            raise BadInput(
                f"model.window: expected at most {2 * scene.halo + 1}, twice the halo of scene {scene.name} plus one, "
                f"found {window}; build the archive with a larger --halo"
            )
        keys = tuple(ModalitySchema.of(modality).key for modality in scene.modalities)
        members.setdefault((keys, scene.tile_size, scene.halo), []).append(scene)
    return tuple(
        SensorGroup(
            schemas=tuple(ModalitySchema.of(modality) for modality in scenes[0].modalities),
            tile_side=tile_size + 2 * halo,
            halo=halo,
            scenes={scene.name: replace(scene, tiles=()) for scene in scenes},
            tiles=tile_table(scenes),
        )
        for (_, tile_size, halo), scenes in members.items()
    )


def all_modalities(groups: tuple[SensorGroup, ...]) -> tuple[ModalitySchema, ...]:
    """Every modality of the groups once, in order of first appearance."""
    return tuple({schema.key: schema for group in groups for schema in group.schemas}.values())
