"""A class map as two files: a GeoTIFF for GIS programs and a picture for the eye."""

from collections.abc import Sequence
from pathlib import Path

from diffclip_dist.fewshot.classifier import ClassifierConfig, MappedClass
from diffclip_dist.mapping.geotiff import write_geotiff
from diffclip_dist.mapping.predict import ClassMap
from shards.archive.manifest import SceneRecord
from shards.errors import BadInput
from shards.extras import installed

SUFFIXES = (".tif", ".tiff")


def check_map_file(file: Path, force: bool) -> None:
    """Refuses a name that a map may not be written under.

    Args:
        file: of the GeoTIFF.
        force: whether an earlier map and its picture may be replaced.

    Raises:
        BadInput: the name is no GeoTIFF's, or one of the two files exists.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise BadInput(f"--out {file}: expected a name that ends with .tif")
    if file.is_dir():
        raise BadInput(f"--out {file}: is a folder, expected a file")
    for existing in (file, picture_file(file)):
        if existing.exists() and not force:
            raise BadInput(
                f"--out {file}: {existing.name} exists already; give --force to replace it, or another --out"
            )


def picture_file(file: Path) -> Path:
    """The name of a map's picture, beside the map."""
    return file.with_suffix(".png")


def write_map(file: Path, class_map: ClassMap, record: SceneRecord, config: ClassifierConfig, rows: int) -> Path | None:
    """Writes a classifier's map of a scene as MAP.tif and MAP.png, see `publish_map`.

    Args:
        file: the GeoTIFF.
        class_map: class ids (row, col), 0 is no data.
        record: the scene.
        config: of the classifier.
        rows: how many rows were mapped, from the first.

    Returns:
        The picture; None where it was not drawn, see `publish_map`.

    Raises:
        BadInput: the files cannot be written there.
    """
    return publish_map(
        file,
        class_map,
        record,
        config.classes,
        title=record.name + (f": the first {rows} rows" if rows < record.height else ""),
        subtitle=f"{config.shots}-shot classifier of scene {config.scene}{' (generated)' if config.generated else ''}, "
        f"encoder {config.encoder}",
        encoder=config.encoder,
    )


def publish_map(
    file: Path,
    class_map: ClassMap,
    record: SceneRecord,
    classes: Sequence[MappedClass],
    title: str,
    subtitle: str,
    encoder: str,
) -> Path | None:
    """Writes MAP.tif and MAP.png, each under another name until it is whole.

    Args:
        file: the GeoTIFF.
        class_map: class ids (row, col), 0 is no data.
        record: the scene.
        classes: the classes the map may hold.
        title: of the picture.
        subtitle: of the picture.
        encoder: what the map was made with, for the GeoTIFF's tags.

    Returns:
        The picture; None where matplotlib, which draws it, is not installed.

    Raises:
        BadInput: the files cannot be written there.
    """
    picture = picture_file(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # the map comes first: it is safe whatever happens to its picture
        write_geotiff(
            file, class_map, record, classes, {"GENERATED": str(record.generated).lower(), "ENCODER": encoder}
        )
        if not installed("matplotlib"):
            return None
        from diffclip_dist.mapping.map_picture import render_map

        render_map(picture, class_map, classes, title, subtitle, record.generated)
    except OSError as error:
        raise BadInput(f"--out {file}: cannot be written: {error.strerror or error}") from error
    return picture
