"""A whole scene to a class map or to class probabilities, block by block."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from diffclip_dist.feature_extraction.bands_only import window_side
from diffclip_dist.feature_extraction.blocks import BLOCK_BYTES, SceneBlock, view_blocks
from diffclip_dist.feature_extraction.extractor import AXES, feature_set_count
from diffclip_dist.feature_extraction.reading import affordable_windows
from diffclip_dist.fewshot.classifier import Classifier
from diffclip_dist.fewshot.prediction import class_probabilities, classify
from diffclip_dist.fewshot.scene_match import AS_FITTED, MatchOptions, match_scene
from shards.archive.archive import ReadableScene
from shards.archive.manifest import SceneRecord

ClassMap = npt.NDArray[np.unsignedinteger[Any]]
Report = Callable[[int], None]


def predict_map(
    classifier: Classifier,
    scene: ReadableScene,
    block_bytes: int = BLOCK_BYTES,
    rows: int | None = None,
    report: Report = lambda _: None,
    options: MatchOptions = AS_FITTED,
) -> ClassMap:
    """Maps a scene.

    Modalities of the classifier that the scene lacks count as missing; those of the scene that the classifier does not
    know are not read.

    Args:
        classifier: what to map with.
        scene: the scene, in memory or in an archive.
        block_bytes: bound on a block's values in memory.
        rows: how many rows to map, from the first; None maps all.
        report: called with the pixels done.
        options: what is done where the scene differs from the one that the classifier was fitted in.

    Returns:
        Class ids (row, col), 0 where no modality has data; uint8 where every id fits, else uint16.

    Raises:
        BadInput: the scene shares no modality with the classifier, or one has other bands or other units.
    """
    classifier, scene = match_scene(classifier, scene, options)
    record = scene.record
    ids = np.array([0, *(known.class_id for known in classifier.config.classes)])
    class_map = np.zeros((record.height, record.width), dtype=map_dtype(int(ids.max())))
    for block in _blocks(classifier, scene, block_bytes, rows, report):
        found = classify([classifier.fitted], block.view, block.wanted, classifier.config.fewshot)[0]
        class_map[block.rows, block.cols] = ids[found[block.core] + 1]
    return class_map


def predict_probabilities(
    classifier: Classifier,
    scene: ReadableScene,
    block_bytes: int = BLOCK_BYTES,
    report: Report = lambda _: None,
    options: MatchOptions = AS_FITTED,
) -> npt.NDArray[np.float32]:
    """Probability of each class over a scene (row, col, class), NaN where no modality has data.

    Takes what `predict_map` takes. See `class_probabilities` for what the numbers mean.
    """
    classifier, scene = match_scene(classifier, scene, options)
    record = scene.record
    found = np.full((record.height, record.width, len(classifier.config.classes)), np.nan, dtype=np.float32)
    for block in _blocks(classifier, scene, block_bytes, None, report):
        probabilities = class_probabilities(classifier.fitted, block.view, block.wanted, classifier.config.fewshot)
        found[block.rows, block.cols] = probabilities[block.core]
    return found


def quick_rows(classifier: Classifier, record: SceneRecord) -> int:
    """Rows of a scene that are mapped within some seconds on two cores."""
    encoder = classifier.fitted.encoder
    windows = affordable_windows(encoder)
    stride = min(classifier.config.fewshot.stride, window_side(encoder))
    rows = windows * stride // -(-record.width // stride)
    return min(max(rows, 1), record.height)


def map_dtype(largest_id: int) -> type[np.unsignedinteger[Any]]:
    """The smallest dtype of a map for GIS programs that holds every class id."""
    return np.uint8 if largest_id <= np.iinfo(np.uint8).max else np.uint16


def _blocks(
    classifier: Classifier, scene: ReadableScene, block_bytes: int, rows: int | None, report: Report
) -> Iterator[SceneBlock]:
    """The scene's blocks; reports the pixels of a block once it was dealt with."""
    config = classifier.config.fewshot
    bands = sum(modality.bands for modality in classifier.config.modalities)
    features = AXES * (3 + feature_set_count(config)) if config.head == "kernel" else 0
    done = 0
    for block in view_blocks(
        scene, classifier.config.modalities, classifier.fitted.encoder, config, bands + features, block_bytes,
        slice(rows),
    ):  # fmt: skip
        report(done)
        yield block
        done += (block.rows.stop - block.rows.start) * (block.cols.stop - block.cols.start)
    report(done)
