"""Scenes that are read in patches and blocks: the same results in any blocks, in bounded memory, in one pass."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffclip_dist.feature_extraction.encoder_source import open_encoder, without_encoder
from diffclip_dist.feature_extraction.extractor import FeatureExtractor, extract_features
from diffclip_dist.feature_extraction.scene_reader import SceneReader
from diffclip_dist.feature_extraction.scene_sample import WHOLE_SCENE_PIXELS
from diffclip_dist.fewshot import labelled_pixels
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.labelled_pixels import LabelGatherer
from diffclip_dist.study import experiment
from diffclip_dist.study.experiment import Outcome, Task, run_task
from diffclip_dist.study.reference_map import read_reference, thinned_classes
from shards.archive.archive import WHOLE, Archive, ReadableScene, Scene
from shards.archive.manifest import SceneRecord
from shards.build.load_scene import load_scene
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

CONFIG = FewshotConfig(statistics_windows=20, smoothing=1)
TASK = Task((1, 2), 2, "random", "scratch")


@dataclass
class CountingScene:
    """A scene that counts the pixels of modalities that are read of it, and the most rows of labels at once."""

    scene: ReadableScene
    pixels: list[int] = field(default_factory=list)
    rows_read: int = 0

    @property
    def record(self) -> SceneRecord:
        return self.scene.record

    def read(self, modalities: tuple[str, ...] | None = None, rows: slice = WHOLE, cols: slice = WHOLE) -> Scene:
        part = self.scene.read(modalities, rows, cols)
        if part.labels is not None:
            self.rows_read = max(self.rows_read, len(part.labels))
        if part.values:
            self.pixels.append(next(iter(part.valid.values())).size)
        return part


@dataclass
class RepeatedScene:
    """A generated scene repeated downwards, made when it is read, so that it takes no memory of its own."""

    tile: Scene
    times: int

    @property
    def record(self) -> SceneRecord:
        record = self.tile.record
        modalities = tuple(replace(one, valid_pixels=one.valid_pixels * self.times) for one in record.modalities)
        return replace(record, height=record.height * self.times, modalities=modalities)

    def read(self, modalities: tuple[str, ...] | None = None, rows: slice = WHOLE, cols: slice = WHOLE) -> Scene:
        chosen = np.arange(self.record.height)[rows] % self.tile.record.height
        assert self.tile.labels is not None
        names = tuple(self.tile.values) if modalities is None else modalities
        return Scene(
            self.record,
            {name: self.tile.values[name][chosen][:, cols] for name in names},
            {name: self.tile.valid[name][chosen][:, cols] for name in names},
            self.tile.labels[chosen][:, cols],
            None,
        )


@pytest.fixture(scope="module")
def scene(generated_archive: Path) -> ReadableScene:
    """48 x 56 pixels; its heights have holes."""
    return Archive.open(generated_archive)["small"]


def studied(
    scene: ReadableScene, block_bytes: int, whole_pixels: int = 0, config: FewshotConfig = CONFIG, task: Task = TASK
) -> Outcome:
    encoder = without_encoder(scene.record).encoder
    return run_task(scene, encoder, task, config, block_bytes=block_bytes, whole_pixels=whole_pixels)


@pytest.mark.parametrize("head", ["kernel", "cosine"])
def test_blocks_of_any_size_give_the_same_study(scene: ReadableScene, head: str) -> None:
    config = replace(CONFIG, head=head, steps=5, views=2)  # type: ignore[arg-type]
    one, *others = (studied(scene, block_bytes, config=config) for block_bytes in (10**9, 1_500_000, 900_000))
    for other in others:
        for first, second in zip(one.runs, other.runs, strict=True):
            assert np.array_equal(first.scores.confusion, second.scores.confusion)
        for shots in TASK.shots:
            assert np.array_equal(one.maps[shots], other.maps[shots])


def test_a_scene_that_is_not_mapped_is_tested_on_a_bounded_part_of_its_labels(
    scene: ReadableScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = studied(scene, 900_000)
    monkeypatch.setattr(experiment, "MOST_MAPPED_PIXELS", 0)
    monkeypatch.setattr(experiment, "MOST_TESTED_WINDOWS", 60)
    part = studied(scene, 900_000)
    labelled = np.flatnonzero(scene.read(()).labels)
    (note,) = (line for line in part.notes if line.startswith("tested on"))
    assert not any(line.startswith("tested on") for line in whole.notes)
    tested: set[int] = set()
    for first, second in zip(whole.runs, part.runs, strict=True):
        read = second.predicted >= 0
        assert 0 < np.count_nonzero(read) <= 60
        assert np.array_equal(first.predicted[read], second.predicted[read])
        query = second.episode.query
        tested |= set((query.rows[read] * scene.record.width + query.cols[read]).tolist())
    assert f"on {len(tested):,} of " in note
    assert np.histogram(sorted(tested), 4, (labelled[0], labelled[-1]))[0].min() > 5


def test_a_large_scene_is_learned_as_it_would_be_at_once(scene: ReadableScene) -> None:
    """Here the patches are the whole scene, so that only the edges of patches and rounding differ."""
    whole, parts = studied(scene, 10**9, whole_pixels=10**9), studied(scene, 900_000)
    for first, second in zip(whole.runs, parts.runs, strict=True):
        assert np.array_equal(first.episode.support.rows, second.episode.support.rows)
        assert abs(first.scores.oa - second.scores.oa) < 3
    assert np.mean(whole.maps[2] == parts.maps[2]) > 0.95


def test_patches_of_scattered_pixels_teach_as_much_as_the_whole_scene() -> None:
    whole = load_scene(GeneratedScene(GeneratedSceneSpec(height=200, width=1400, bands=32, seed=5)))
    assert whole.labels is not None
    kept = np.random.default_rng(0).random(whole.labels.shape) < 0.005
    scattered = replace(whole, valid={**whole.valid, "hsi": whole.valid["hsi"] & kept}, labels=whole.labels * kept)
    assert whole.labels.size > WHOLE_SCENE_PIXELS
    task = Task((2,), 5, "random", "scratch")
    by_patches, at_once = (
        np.mean([run.scores.oa for run in studied(scattered, 2**27, pixels, FewshotConfig(), task).runs])
        for pixels in (WHOLE_SCENE_PIXELS, whole.labels.size)
    )
    assert by_patches > at_once - 2.0  # percent


@pytest.mark.parametrize("encoder", ["none", None])
def test_surroundings_of_a_pixel_give_the_features_that_the_scene_gives(
    scene: ReadableScene, encoder: str | None
) -> None:
    record = scene.record
    module = (without_encoder(record) if encoder is None else open_encoder(encoder, record)).encoder
    whole = SceneReader.open(scene, module, CONFIG)
    parts = SceneReader.open(scene, module, CONFIG, whole_pixels=0)
    assert whole.view is not None
    extractor = FeatureExtractor.fit(module, whole.view, whole.view.present, CONFIG)
    rows, cols = np.array([0, 11, 20, 30, 41]), np.array([3, 0, 27, 14, 50])
    expected = extract_features(extractor, module, whole.view, whole.view.present, CONFIG).at(rows, cols)
    view, moved_rows, moved_cols = parts.around(rows, cols)
    wanted = np.zeros_like(view.present)
    wanted[moved_rows, moved_cols] = True
    found = extract_features(extractor, module, view, wanted, CONFIG).at(moved_rows, moved_cols)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_all_models_share_one_pass(scene: ReadableScene) -> None:
    """Each draw has shots in every block here, so that more draws need no other block."""
    read = []
    for task in (Task((5,), 1, "random", "scratch"), Task((1, 2, 5), 4, "random", "scratch")):
        counting = CountingScene(scene)
        studied(counting, 1_500_000, task=task)
        read.append(counting.pixels)
    assert len(read[1]) == len(read[0])
    assert sum(read[1]) == sum(read[0])


def test_blocks_without_a_labelled_pixel_are_not_read_where_no_map_is_drawn(
    scene: ReadableScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    tile = scene.read()
    assert tile.labels is not None
    few = tile.labels.copy()
    few[16:] = 0
    read = {}
    for name, labels in (("few", few), ("many", tile.labels)):
        monkeypatch.setattr(experiment, "MOST_MAPPED_PIXELS", 0)
        counting = CountingScene(replace(tile, labels=labels))
        outcome = studied(counting, 900_000)
        assert not outcome.maps
        assert [note for note in outcome.notes if "no map was drawn" in note]
        read[name] = sum(counting.pixels)
    assert read["few"] < read["many"]


def test_the_map_of_the_labels_is_read_strip_by_strip(scene: ReadableScene) -> None:
    repeated = RepeatedScene(scene.read(), 20)
    counting = CountingScene(repeated)
    found = read_reference(counting, (1, 3), 100)
    labels = repeated.read(()).labels
    assert labels is not None
    expected = np.where(np.isin(labels, (1, 3)), labels, 0).astype(np.uint8)
    assert counting.rows_read < len(labels) / 2
    assert np.array_equal(found.class_ids, thinned_classes(expected, 10))
    assert {c: found.pixels[c] for c in (1, 3)} == {c: np.count_nonzero(labels == c) for c in (1, 3)}


def peak_growth(work: Callable[[], object]) -> float:
    """Bytes that the process needed at most beyond what it held before (proc(5), clear_refs)."""

    def field_of(name: str) -> int:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split(f"{name}:")[1].split()[0])

    Path("/proc/self/clear_refs").write_text("5")
    before = field_of("VmRSS")
    work()
    return field_of("VmHWM") - before


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's account of peak memory")
def test_memory_does_not_grow_with_the_scene(scene: ReadableScene) -> None:
    tile = scene.read()
    config = replace(CONFIG, smoothing=0)
    task = Task((1,), 1, "random", "scratch")
    studied(RepeatedScene(tile, 8), 2**24, config=config, task=task)  # what libraries keep from their first use
    growth = {
        times: peak_growth(lambda: studied(RepeatedScene(tile, times), 2**24, config=config, task=task))  # noqa: B023
        for times in (8, 40)
    }
    features_of_the_rest = (40 - 8) * 48 * 56 * 2 * 64 * 4  # bytes, were they all held
    assert growth[40] - growth[8] < features_of_the_rest / 4


def test_of_many_labelled_pixels_a_part_is_kept_evenly_and_rare_classes_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(labelled_pixels, "MOST_LABELLED", 1_000)
    monkeypatch.setattr(labelled_pixels, "LEAST_OF_CLASS", 50)
    labels = np.random.default_rng(0).choice(np.array([0, 1, 2], np.uint16), (120, 80), p=[0.2, 0.5, 0.3])
    labels[5, :20] = 3
    kept = []
    for strip in (120, 40, 7):
        gatherer = LabelGatherer(80)
        for top in range(0, 120, strip):
            gatherer.add(top, labels[top : top + strip])
        assert gatherer.seen == np.count_nonzero(labels)
        kept.append(gatherer.gathered())
    for one in kept:
        assert len(one) <= 1_000
        assert np.array_equal(labels.ravel()[one.places], one.class_ids)
        assert np.count_nonzero(one.class_ids == 3) == 20
        assert np.histogram(one.places, 4, (0, labels.size))[0].min() > len(one) / 6
        share = np.mean(one.class_ids == 1) / np.mean(one.class_ids == 2)
        assert share == pytest.approx(np.sum(labels == 1) / np.sum(labels == 2), rel=0.1)
    gatherer = LabelGatherer(80)
    monkeypatch.setattr(labelled_pixels, "MOST_LABELLED", labels.size)
    gatherer.add(0, labels)
    assert np.array_equal(gatherer.gathered().places, np.flatnonzero(labels))
