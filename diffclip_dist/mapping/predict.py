"""A scene to a class map or to class probabilities, block by block.

The blocks are those of the map's file. Each is computed by itself and on one thread, so that it has the same bytes in
whichever process, on however many cores, and in whatever order it is computed.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from diffclip_dist.feature_extraction.bands_only import best_device, window_side
from diffclip_dist.feature_extraction.blocks import BLOCK_BYTES, view_blocks
from diffclip_dist.feature_extraction.extractor import held_values
from diffclip_dist.feature_extraction.one_thread import one_thread
from diffclip_dist.feature_extraction.reading import affordable_windows
from diffclip_dist.fewshot.classifier import Classifier, MappedClass
from diffclip_dist.fewshot.prediction import class_probabilities
from diffclip_dist.fewshot.scene_match import AS_FITTED, MatchOptions, match_scene
from shards.archive.archive import ReadableScene
from shards.archive.manifest import SceneRecord
from shards.build.parallel import run_all
from shards.errors import BadInput

ClassMap = npt.NDArray[np.unsignedinteger[Any]]
Report = Callable[[int], None]

# Side of a block of the map and of its file, in pixels; a multiple of 16, as GeoTIFF wants it
BLOCK: Final = 512
# Of probabilities in percent, where no modality has data
NO_PERCENT: Final = 255
LARGEST_ID: Final = int(np.iinfo(np.uint16).max)
UNSURE_NAME: Final = "unsure"
UNSURE_COLOUR: Final = "#9e9e9e"


class Place(NamedTuple):
    """The upper left pixel of a block."""

    row: int
    col: int


@dataclass(frozen=True)
class MapOptions:
    """What a map holds.

    Attributes:
        probabilities: whether the probabilities are kept.
        unsure: pixels whose class is less probable than this get the class ``unsure``; None keeps every class.
        rows: how many rows are mapped, from the first; None maps all.
    """

    probabilities: bool = False
    unsure: float | None = None
    rows: int | None = None

    def __post_init__(self) -> None:
        if self.unsure is not None and not 0.0 < self.unsure <= 1.0:
            raise BadInput(f"--unsure {self.unsure:g}: expected a probability above 0 and at most 1")


@dataclass(frozen=True)
class MapJob:
    """A map to compute: what every block of it needs. Make one with `map_job`.

    Attributes:
        classifier: what to map with, made to fit the scene.
        scene: the scene, in memory or in an archive, with the bands that the classifier knows.
        options: what the map holds.
        block_bytes: bound on the values of a part of a block that are in memory at once.
    """

    classifier: Classifier
    scene: ReadableScene
    options: MapOptions = MapOptions()
    block_bytes: int = BLOCK_BYTES

    @property
    def classes(self) -> tuple[MappedClass, ...]:
        """The classes the map may hold, ``unsure`` last where it is wanted."""
        known = self.classifier.config.classes
        return known if self.options.unsure is None else (*known, unsure_class(known))

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Of the map."""
        return np.dtype(map_dtype(max(one.class_id for one in self.classes)))

    @property
    def places(self) -> tuple[Place, ...]:
        """The blocks, from left to right, then from top to bottom."""
        record = self.scene.record
        bottom = range(record.height)[slice(self.options.rows)].stop
        return tuple(Place(row, col) for row in range(0, bottom, BLOCK) for col in range(0, record.width, BLOCK))

    def region(self, place: Place) -> tuple[slice, slice]:
        """Rows and columns of a block."""
        record = self.scene.record
        bottom = range(record.height)[slice(self.options.rows)].stop
        return (
            slice(place.row, min(place.row + BLOCK, bottom)),
            slice(place.col, min(place.col + BLOCK, record.width)),
        )


@dataclass(frozen=True)
class MapBlock:
    """A block of a map.

    Attributes:
        place: where it lies.
        class_ids: (row, col), 0 where no modality has data.
        percent: uint8 (row, col, class), probabilities in percent, `NO_PERCENT` where no modality has data; None where
            they are not kept.
    """

    place: Place
    class_ids: ClassMap
    percent: npt.NDArray[np.uint8] | None

    @property
    def pixels(self) -> int:
        """How many it has."""
        return int(self.class_ids.size)


def predict_map(
    classifier: Classifier,
    scene: ReadableScene,
    block_bytes: int = BLOCK_BYTES,
    rows: int | None = None,
    report: Report = lambda _: None,
    options: MatchOptions = AS_FITTED,
) -> ClassMap:
    """Maps a scene into memory.

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
    job = map_job(classifier, scene, MapOptions(rows=rows), options, block_bytes)
    class_map = np.zeros((scene.record.height, scene.record.width), dtype=job.dtype)
    done = 0
    for block in compute_blocks(job, job.places):
        class_map[job.region(block.place)] = block.class_ids
        done += block.pixels
        report(done)
    return class_map


def predict_probabilities(
    classifier: Classifier,
    scene: ReadableScene,
    block_bytes: int = BLOCK_BYTES,
    options: MatchOptions = AS_FITTED,
) -> npt.NDArray[np.float32]:
    """Probability of each class over a scene (row, col, class), NaN where no modality has data.

    Takes what `predict_map` takes. See `class_probabilities` for what the numbers mean.
    """
    job = map_job(classifier, scene, match=options, block_bytes=block_bytes)
    found = np.empty((scene.record.height, scene.record.width, len(classifier.config.classes)), dtype=np.float32)
    for place in job.places:
        region = job.region(place)
        found[region] = _probabilities(job, *region)
    return found


def map_job(
    classifier: Classifier,
    scene: ReadableScene,
    options: MapOptions = MapOptions(),
    match: MatchOptions = AS_FITTED,
    block_bytes: int = BLOCK_BYTES,
) -> MapJob:
    """A map of a scene, to be computed.

    Args:
        classifier: what to map with.
        scene: the scene, in memory or in an archive.
        options: what the map holds.
        match: what is done where the scene differs from the one that the classifier was fitted in.
        block_bytes: bound on a block's values in memory.

    Raises:
        BadInput: classifier and scene do not fit each other, see `match_scene`.
    """
    return MapJob(*match_scene(classifier, scene, match), options, block_bytes)


def compute_blocks(job: MapJob, places: Sequence[Place], workers: int = 1) -> Iterator[MapBlock]:
    """Blocks of a map, as they are computed: in this process, or as Ray tasks in several, in the order they finish.

    Args:
        job: the map. Each of several workers takes a GPU where the cluster has one for it.
        places: of the blocks.
        workers: processes.
    """
    if workers == 1:
        for place in places:
            yield compute_block(job, place)
    else:
        sent = _moved(job, "cpu")
        yield from run_all(_compute_in_worker, [(sent, place) for place in places], workers, gpus=True)


def compute_block(job: MapJob, place: Place) -> MapBlock:
    """A block of a map."""
    probability_HWC = _probabilities(job, *job.region(place))
    known_HW = ~np.isnan(probability_HWC[..., 0])
    best_HW = np.where(known_HW, probability_HWC.argmax(axis=2), -1)
    ids = np.array([0, *(one.class_id for one in job.classifier.config.classes)])
    found_HW = ids[best_HW + 1]
    if job.options.unsure is not None:
        found_HW[known_HW & (probability_HWC.max(axis=2) < job.options.unsure)] = job.classes[-1].class_id
    percent = None
    if job.options.probabilities:
        percent = np.where(known_HW[..., None], np.rint(100.0 * probability_HWC), NO_PERCENT).astype(np.uint8)
    return MapBlock(place, found_HW.astype(job.dtype), percent)


def _compute_in_worker(job: MapJob, place: Place) -> MapBlock:
    return compute_block(_moved(job, best_device()), place)


def on_device(classifier: Classifier, device: str) -> Classifier:
    """The same classifier on a device."""
    if classifier.fitted.text_CE.device.type == device:
        return classifier
    return Classifier(classifier.config, classifier.fitted.to(device))


def _moved(job: MapJob, device: str) -> MapJob:
    return replace(job, classifier=on_device(job.classifier, device))


def _probabilities(job: MapJob, rows: slice, cols: slice) -> npt.NDArray[np.float32]:
    """Probability of each class in a part of the scene (row, col, class), NaN where no modality has data."""
    classifier = job.classifier
    config = classifier.config.fewshot
    modalities = classifier.config.modalities
    kernel = config.head == "kernel"
    values = held_values(modalities, config) if kernel else sum(modality.bands for modality in modalities)
    if classifier.fitted.prior is not None:  # what names tell of each class is held too
        values += len(classifier.config.classes)
    shape = (rows.stop - rows.start, cols.stop - cols.start, len(classifier.config.classes))
    found = np.empty(shape, dtype=np.float32)
    with one_thread():
        for part in view_blocks(
            job.scene, modalities, classifier.fitted.encoder, config, values, job.block_bytes, rows, cols
        ):
            probability_HWC = class_probabilities(classifier.fitted, part.view, part.wanted, config)
            place = tuple(
                slice(one.start - whole.start, one.stop - whole.start)
                for one, whole in zip((part.rows, part.cols), (rows, cols), strict=True)
            )
            found[place] = probability_HWC[part.core]
    return found


def unsure_class(classes: Sequence[MappedClass]) -> MappedClass:
    """The class of pixels that no class is probable enough for; its id comes after those of all classes if it can."""
    taken = {one.class_id for one in classes}
    free = chain(range(max(taken) + 1, LARGEST_ID + 1), range(1, max(taken)))
    return MappedClass(next(one for one in free if one not in taken), UNSURE_NAME, UNSURE_COLOUR, classes[0].id_shift)


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


def count_classes(class_map: ClassMap) -> Counter[int]:
    """Pixels of each class id."""
    ids, counts = np.unique(class_map, return_counts=True)
    return Counter(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
