"""A map as files: GeoTIFFs for GIS programs and a picture for the eye."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from diffclip_dist.feature_extraction.band_match import PickedScene
from diffclip_dist.fewshot.calibration import LEAST_HELD_OUT, Calibration
from diffclip_dist.fewshot.classifier import MappedClass
from diffclip_dist.fewshot.classifier_fingerprint import classifier_fingerprint
from diffclip_dist.fewshot.fit_labels import ALL_LABELS
from diffclip_dist.mapping.geotiff import map_writer, probability_writer, read_map
from diffclip_dist.mapping.predict import (
    ClassMap,
    MapJob,
    Report,
    compute_blocks,
    count_classes,
)
from diffclip_dist.mapping.unfinished_map import UnfinishedMap, unfinished_folder, unfinished_map
from shards.archive.archive import ReadableScene, Scene, StoredScene
from shards.archive.manifest import SceneRecord
from shards.errors import BadInput
from shards.extras import install_line, installed

SUFFIXES = (".tif", ".tiff")
# Pixels of a side of the map that a picture is drawn from, about as many as the picture has
PICTURE_PIXELS: Final = 1_200


@dataclass(frozen=True)
class MapFiles:
    """What was written.

    Attributes:
        classes: the GeoTIFF of classes.
        probabilities: the one of probabilities; None where they were not wanted.
        picture: None where matplotlib, which draws it, is not installed.
        resumed_pixels: pixels that an earlier run had finished.
    """

    classes: Path
    probabilities: Path | None
    picture: Path | None
    resumed_pixels: int


def check_map_file(file: Path, force: bool) -> None:
    """Refuses a name that a map may not be written under.

    Args:
        file: of the GeoTIFF.
        force: whether an earlier map, its probabilities and its picture may be replaced.

    Raises:
        BadInput: the name is no GeoTIFF's, or one of the files exists.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise BadInput(f"--out {file}: expected a name that ends with .tif")
    if file.is_dir():
        raise BadInput(f"--out {file}: is a folder, expected a file")
    for existing in (file, probabilities_file(file), picture_file(file)):
        # a run that was killed may have left its probabilities, beside its finished blocks
        if existing.exists() and not force and (existing == file or not unfinished_folder(file).exists()):
            raise BadInput(
                f"--out {file}: {existing.name} exists already; give --force to replace it, or another --out"
            )


def picture_file(file: Path) -> Path:
    """The name of a map's picture, beside the map."""
    return file.with_suffix(".png")


def probabilities_file(file: Path) -> Path:
    """The name of the probabilities of a map's classes, beside the map."""
    return file.with_name(f"{file.stem}_probabilities{file.suffix}")


def write_map(file: Path, job: MapJob, workers: int = 1, report: Report = lambda _: None) -> MapFiles:
    """Maps a scene into MAP.tif, MAP_probabilities.tif where they are wanted, and MAP.png.

    Finished blocks are kept beside the map until it is whole. If this process is killed, the same call goes on from
    them, to the same bytes. Memory does not grow with the scene. Earlier files of these names are replaced.

    Args:
        file: the GeoTIFF.
        job: the map.
        workers: processes that compute blocks; more than 1 are Ray tasks.
        report: called with the pixels done.

    Raises:
        BadInput: the files cannot be written there, or Ray is wanted and is not installed.
    """
    record, config = job.scene.record, job.classifier.config
    if workers < 1:
        raise BadInput(f"--workers {workers}: expected at least 1")
    if workers > 1 and not installed("ray"):
        raise BadInput(f"--workers {workers}: {install_line('ray')}")
    tags = {"GENERATED": str(record.generated).lower(), "ENCODER": config.encoder}
    if job.options.unsure is not None:
        tags |= {"UNSURE_BELOW": f"{job.options.unsure:g}", "CALIBRATION": describe_calibration(config.calibration)}
    probabilities = probabilities_file(file) if job.options.probabilities else None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with unfinished_map(file, _key(job)) as unfinished:
            found = unfinished.finished()
            done = resumed = sum(found.values())
            report(done)
            for block in compute_blocks(job, [place for place in job.places if place not in found], workers):
                unfinished.keep(block)
                done += block.pixels
                report(done)
            pixels = _assemble(file, probabilities, job, unfinished, tags)
        if probabilities is None:
            probabilities_file(file).unlink(missing_ok=True)  # of an earlier map
        rows = record.height if job.options.rows is None else job.options.rows
        picture = _draw(
            file,
            record,
            job.classes,
            title=record.name + (f": the first {rows} rows" if rows < record.height else ""),
            subtitle=(
                "classifier from all labels" if config.protocol == ALL_LABELS else f"{config.shots}-shot classifier"
            )
            + f" of scene {config.scene}{' (generated)' if config.generated else ''}, encoder {config.encoder}",
            pixels=pixels,
        )
    except OSError as error:
        raise BadInput(f"--out {file}: cannot be written: {error.strerror or error}") from error
    return MapFiles(file, probabilities, picture, resumed)


def publish_map(
    file: Path,
    class_map: ClassMap,
    record: SceneRecord,
    classes: Sequence[MappedClass],
    title: str,
    subtitle: str,
    encoder: str,
) -> Path | None:
    """Writes a map that is in memory as MAP.tif and MAP.png, each under another name until it is whole.

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
    tags = {"GENERATED": str(record.generated).lower(), "ENCODER": encoder}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with map_writer(file, class_map.dtype.name, record, classes, tags) as write:
            write(0, 0, class_map)
        return _draw(file, record, classes, title, subtitle, count_classes(class_map))
    except OSError as error:
        raise BadInput(f"--out {file}: cannot be written: {error.strerror or error}") from error


def describe_calibration(calibration: Calibration) -> str:
    """What a reader of probabilities must know, in a few words."""
    if calibration.calibrated:
        return f"calibrated on {calibration.held_out_pixels} held-out shots, temperature {calibration.temperature:.2f}"
    return (
        f"not calibrated: {calibration.held_out_pixels} held-out shots, at least {LEAST_HELD_OUT} wanted; they rank "
        "pixels by certainty"
    )


def _key(job: MapJob) -> str:
    """A hash of all that the bytes of a map's blocks depend on."""
    parts = {
        "classifier": classifier_fingerprint(job.classifier),
        "scene": _scene_key(job.scene),
        "options": asdict(job.options),
        "block_bytes": job.block_bytes,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _scene_key(scene: ReadableScene) -> str:
    """What names the content of a scene: of an archive, the archive's fingerprint and the name."""
    if isinstance(scene, StoredScene):
        return f"{scene.archive.fingerprint} {scene.record.name}"
    if isinstance(scene, PickedScene):
        return f"{_scene_key(scene.scene)} {sorted(scene.picked.items())}"
    return _content_hash(scene.read())


def _content_hash(scene: Scene) -> str:
    """A hash of a scene in memory."""
    found = hashlib.sha256()
    for name, values in sorted(scene.values.items()):
        found.update(f"{name} {values.dtype} {values.shape}".encode())
        found.update(np.ascontiguousarray(values).data)
        found.update(np.ascontiguousarray(scene.valid[name]).data)
    return found.hexdigest()


def _assemble(
    file: Path, probabilities: Path | None, job: MapJob, unfinished: UnfinishedMap, tags: Mapping[str, str]
) -> Counter[int]:
    """Finished blocks to GeoTIFFs, the map of classes last; the pixels of each class id."""
    record, config = job.scene.record, job.classifier.config
    pixels: Counter[int] = Counter()
    with ExitStack() as stack:
        write_classes = stack.enter_context(map_writer(file, job.dtype.name, record, job.classes, tags))
        if probabilities is not None:
            said = {**tags, "CALIBRATION": describe_calibration(config.calibration)}
            write_percent = stack.enter_context(probability_writer(probabilities, record, config.classes, said))
        for place in job.places:
            block = unfinished.read(place)
            write_classes(*place, block.class_ids)
            pixels += count_classes(block.class_ids)
            if block.percent is not None:
                write_percent(*place, block.percent)
    return pixels


def _draw(
    file: Path,
    record: SceneRecord,
    classes: Sequence[MappedClass],
    title: str,
    subtitle: str,
    pixels: Mapping[int, int],
) -> Path | None:
    """The picture of a written map, from its overviews; None without matplotlib."""
    if not installed("matplotlib"):
        return None
    from diffclip_dist.mapping.map_picture import render_map

    thinned = read_map(file, classes, PICTURE_PIXELS)
    render_map(picture_file(file), thinned, classes, title, subtitle, record.generated, pixels=pixels)
    return picture_file(file)
