"""Archives for Python users."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from diffclip_dist.api.scenes import Arrays, XarrayScene, scene_source
from shards.archive.archive import Archive
from shards.archive.tiling import ArchiveSettings
from shards.build import build_archive as building
from shards.open_scene import open_scene
from shards.scene.source import SceneSource


def open_archive(location: str | Path) -> Archive:
    """Opens an archive, and checks that its files are there unless they are very many, see `Archive.open`.

    Args:
        location: its folder or fsspec URL.

    Returns:
        The archive: ``archive["potsdam"]`` is a scene of it, ``archive.manifest`` says what it holds.

    Raises:
        BadInput: there is no archive.
        DamagedArchive: a file is not as the manifest says.

    Example:
        >>> scene = dc.open_archive("archive")["potsdam"]
    """
    return Archive.open(location)


def build_archive(
    scenes: Sequence[str | Path | SceneSource] | Mapping[str, XarrayScene | Arrays],
    out: str | Path,
    *,
    tile_size: int = ArchiveSettings.tile_size,
    halo: int = ArchiveSettings.halo,
    workers: int = 1,
    add: bool = False,
) -> Archive:
    """Builds an archive of scenes, to the same bytes as ``shard.py`` does.

    Args:
        scenes: scene.yaml files or folders, names of generated or public scenes, or scene sources; or a mapping of
            names to xarray Datasets (a variable a modality), DataArrays, or dicts of NumPy arrays (row, col, band) by
            modality.
        out: folder or fsspec URL where nothing is yet.
        tile_size: pixels along a tile's side.
        halo: pixels around a tile; windows up to 2 * halo + 1 wide can be cut.
        workers: parts that are built at once; more than 1 are Ray tasks.
        add: adds the scenes to an archive that is there.

    Raises:
        BadInput: a scene cannot be used, or `out` is taken; nothing is left behind.

    Example:
        >>> archive = dc.build_archive(["scene.yaml"], "archive")
        >>> archive = dc.build_archive({"field": xarray.open_dataset("field.nc")}, "archive")
    """
    if isinstance(scenes, Mapping):
        sources = [scene_source(scene, name) for name, scene in scenes.items()]
    else:
        sources = [open_scene(str(scene)) if isinstance(scene, str | Path) else scene for scene in scenes]
    settings = ArchiveSettings(tile_size=tile_size, halo=halo)
    building.build_archive(sources, out, settings, workers=workers, add=add)
    return Archive.open(out)
