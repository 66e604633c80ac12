"""A whole scene to a class map, strip by strip, in memory that does not grow with the scene's height."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from diffclip_dist.features.extractor import AXES, feature_set_count
from diffclip_dist.features.reading import affordable_windows
from diffclip_dist.features.scene_view import view_scene
from diffclip_dist.fewshot.classifier import Classifier
from diffclip_dist.fewshot.fitting import classify
from shards.archive.archive import Archive, Scene
from shards.archive.manifest import SceneRecord, TileRecord
from shards.errors import BadInput

# A strip's standardised values stay below this; the encoder's own memory comes on top.
STRIP_BYTES = 256 * 2**20
ClassMap = npt.NDArray[np.unsignedinteger[Any]]


def predict_map(
    classifier: Classifier,
    archive: Archive,
    name: str,
    strip_bytes: int = STRIP_BYTES,
    rows: int | None = None,
    report: Callable[[int], None] = lambda _: None,
) -> ClassMap:
    """Maps a scene of an archive.

    Modalities of the classifier that the scene lacks count as missing; those of the scene that the classifier does not
    know are not looked at.

    Args:
        classifier: what to map with.
        archive: holds the scene.
        name: of the scene.
        strip_bytes: bound on a strip's values in memory.
        rows: how many rows to map, from the first; None maps all.
        report: called with the rows done.

    Returns:
        Class ids (row, col), 0 where no modality has data; uint8 where every id fits, else uint16.

    Raises:
        BadInput: no such scene, or it shares no modality with the classifier, or one has other bands.
    """
    record = archive.scene(name)
    used = _shared_modalities(classifier, record)
    ids = np.array([0, *(known.class_id for known in classifier.config.classes)])
    class_map = np.zeros((record.height, record.width), dtype=map_dtype(int(ids.max())))
    config = classifier.config.fewshot
    window = classifier.fitted.encoder.config.window
    stride = min(config.stride, window)
    # Strips and their margins are whole strides, so that every strip has the scene's own grid of windows
    margin = -(-(window // 2 + stride // 2 + config.smoothing_reach) // stride) * stride
    bands = sum(modality.bands for modality in record.modalities if modality.name in used)
    feature_width = AXES * (3 + feature_set_count(config)) if config.head == "kernel" else 0
    row_bytes = 4 * record.width * (bands + feature_width)
    strip_rows = max((strip_bytes // row_bytes - 2 * margin) // stride, 1) * stride
    last = record.height if rows is None else min(rows, record.height)
    for start in range(0, last, strip_rows):
        report(start)
        stop = min(start + strip_rows, last)
        top, bottom = max(start - margin, 0), min(stop + margin, record.height)
        view = view_scene(
            read_rows(archive, record, top, bottom, used),
            classifier.config.modalities,
            classifier.fitted.encoder,
            config,
        )
        wanted = np.zeros(view.present.shape, dtype=np.bool_)
        wanted[start - top : stop - top] = True
        found = classify([classifier.fitted], view, wanted, config)[0]
        class_map[start:stop] = ids[found[start - top : stop - top] + 1]
    report(last)
    return class_map


def quick_rows(classifier: Classifier, record: SceneRecord) -> int:
    """Rows of a scene that are mapped within some seconds on two cores."""
    encoder = classifier.fitted.encoder
    windows = affordable_windows(encoder)
    stride = min(classifier.config.fewshot.stride, encoder.config.window)
    rows = windows * stride // -(-record.width // stride)
    return min(max(rows, 1), record.height)


def map_dtype(largest_id: int) -> type[np.unsignedinteger[Any]]:
    """The smallest dtype of a map for GIS programs that holds every class id."""
    return np.uint8 if largest_id <= np.iinfo(np.uint8).max else np.uint16


def read_rows(archive: Archive, record: SceneRecord, top: int, bottom: int, modalities: tuple[str, ...]) -> Scene:
    """Rows of a scene, put together from the tiles that cover them; pixels without a tile are missing."""
    shape = (bottom - top, record.width)
    known = {modality.name: modality for modality in record.modalities}
    values = {
        name: np.full((*shape, known[name].bands), known[name].missing_value, dtype=known[name].dtype)
        for name in modalities
    }
    valid = {name: np.zeros(shape, dtype=np.bool_) for name in modalities}
    for tile in _tiles_of_rows(record, top, bottom):
        read = archive.read_tile(tile)
        first, last = max(tile.row, top), min(tile.row + tile.height, bottom)
        source = (
            slice(first - tile.row + record.halo, last - tile.row + record.halo),
            slice(record.halo, record.halo + tile.width),
        )
        target = (slice(first - top, last - top), slice(tile.col, tile.col + tile.width))
        for name in modalities:
            values[name][target] = read.values[name][source]
            valid[name][target] = read.valid[name][source]
    return Scene(replace(record, height=shape[0], tiles=()), values, valid, labels=None, split=None)


def _tiles_of_rows(record: SceneRecord, top: int, bottom: int) -> Iterator[TileRecord]:
    return (tile for tile in record.tiles if tile.row < bottom and tile.row + tile.height > top)


def _shared_modalities(classifier: Classifier, record: SceneRecord) -> tuple[str, ...]:
    known = {modality.name: modality.bands for modality in classifier.config.modalities}
    shared = [modality for modality in record.modalities if modality.name in known]
    if not shared:
        raise BadInput(
            f"scene {record.name}: has the modalities {', '.join(modality.name for modality in record.modalities)}, "
            f"and the classifier knows {', '.join(known)}: none is shared"
        )
    for modality in shared:
        if modality.bands != known[modality.name]:
            raise BadInput(
                f"scene {record.name}: modality {modality.name}: has {modality.bands} bands, and the classifier "
                f"expects {known[modality.name]}"
            )
    return tuple(modality.name for modality in shared)
