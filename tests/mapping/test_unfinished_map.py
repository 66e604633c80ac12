"""A map of several blocks: killed and started again, by several processes, from other inputs; the same bytes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from small_study import LAUNCH, command

import diffclip_dist as dc
from diffclip_dist.fewshot.classifier import Classifier, MappedClass
from diffclip_dist.mapping import map_files
from diffclip_dist.mapping.map_files import write_map
from diffclip_dist.mapping.predict import BLOCK, MapBlock, MapJob, MapOptions, compute_block, predict_map, unsure_class
from diffclip_dist.mapping.unfinished_map import unfinished_folder, unfinished_map
from shards.archive.archive import Archive
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.errors import BadInput
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

ROWS, BLOCKS = 30, 5
SHOTS = 4


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """A generated scene that is several blocks of a map wide."""
    folder = tmp_path_factory.mktemp("wide") / "archive"
    spec = GeneratedSceneSpec("wide", ROWS, (BLOCKS - 1) * BLOCK + 100, 4, 450.0, 900.0)
    build_archive([GeneratedScene(spec)], folder, ArchiveSettings())
    return Archive.open(folder)


@pytest.fixture(scope="module")
def model(wide: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of bands alone, from a few labels of the generated scene."""
    labels = wide.read_scene("wide", ()).labels
    assert labels is not None
    shots = np.zeros_like(labels)
    for class_id in np.unique(labels[labels > 0]):
        rows, cols = np.nonzero(labels == class_id)
        chosen = np.random.default_rng(0).permutation(len(rows))[:SHOTS]
        shots[rows[chosen], cols[chosen]] = class_id
    folder = tmp_path_factory.mktemp("model") / "model"
    dc.FewShotClassifier().fit(wide["wide"], shots).save(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(model: Path) -> Classifier:
    return dc.FewShotClassifier.load(model).classifier_


def arguments(model: Path, wide: Archive, out: Path) -> tuple[object, ...]:
    return ("--model", model, "--archive", wide.location, "--scene", "wide", "--out", out, "--probabilities")


@pytest.fixture(scope="module")
def uninterrupted(model: Path, wide: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The map of a run that was left alone."""
    out = tmp_path_factory.mktemp("uninterrupted") / "map.tif"
    ended = command("predict.py", *arguments(model, wide, out))
    assert ended.status == 0, ended.errors
    assert "went on" not in ended.output
    return out


def assert_same_files(out: Path, expected: Path) -> None:
    for name in ("map.tif", "map_probabilities.tif", "map.tif.aux.xml", "map.qml", "map.png"):
        assert (out.parent / name).read_bytes() == (expected.parent / name).read_bytes(), name
    assert {path.name for path in out.parent.iterdir()} == {path.name for path in expected.parent.iterdir()}


def test_a_killed_map_goes_on_to_the_same_bytes(
    model: Path, wide: Archive, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "map.tif"
    given = arguments(model, wide, out)
    with subprocess.Popen(
        [sys.executable, str(LAUNCH / "predict.py"), *map(str, given)], stderr=subprocess.DEVNULL
    ) as running:
        while not list(unfinished_folder(out).glob("*.npz")):
            assert running.poll() is None
            time.sleep(0.002)
        os.kill(running.pid, signal.SIGKILL)
    assert not out.exists()
    finished = len(list(unfinished_folder(out).glob("*.npz")))
    assert 1 <= finished < BLOCKS
    ended = command("predict.py", *given)
    assert ended.status == 0, ended.errors
    assert "went on        from " in ended.output
    assert_same_files(out, uninterrupted)


@pytest.mark.slow
def test_several_processes_make_the_same_bytes(model: Path, wide: Archive, uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.tif"
    ended = command("predict.py", *arguments(model, wide, out), "--workers", 2)
    assert ended.status == 0, ended.errors
    assert_same_files(out, uninterrupted)


def test_only_blocks_of_the_same_inputs_are_taken(
    classifier: Classifier, model: Path, wide: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = MapJob(classifier, wide["wide"])

    def three_blocks(*_: object) -> Iterator[MapBlock]:
        yield from (compute_block(job, place) for place in job.places[:3])
        raise KeyboardInterrupt

    out = tmp_path / "map.tif"
    with monkeypatch.context() as patched:
        patched.setattr(map_files, "compute_blocks", three_blocks)
        ended = command("predict.py", *arguments(model, wide, out)[:-1])
    assert ended.status == 130
    assert ended.errors.endswith("finished blocks are kept: the same command goes on from them\ninterrupted\n")
    kept = unfinished_folder(out)
    damaged = sorted(kept.glob("*.npz"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-50])
    pixels: list[int] = []
    for name, options in (("other.tif", MapOptions(unsure=0.5)), ("map.tif", MapOptions())):
        shutil.copytree(kept, unfinished_folder(tmp_path / "other.tif"), dirs_exist_ok=True)
        pixels.append(write_map(tmp_path / name, replace(job, options=options)).resumed_pixels)
    assert pixels == [0, 2 * BLOCK * ROWS], "other options start anew; a damaged block is computed again"
    with rasterio.open(tmp_path / "map.tif") as read:
        assert np.array_equal(read.read(1), predict_map(classifier, wide["wide"]))


def test_two_runs_may_not_write_one_map(classifier: Classifier, wide: Archive, tmp_path: Path) -> None:
    with (
        unfinished_map(tmp_path / "map.tif", "key"),
        pytest.raises(BadInput, match="another process is writing this map"),
    ):
        write_map(tmp_path / "map.tif", MapJob(classifier, wide["wide"]))


def test_probabilities_are_bands_with_names(uninterrupted: Path, classifier: Classifier, wide: Archive) -> None:
    names = [one.name for one in classifier.config.classes]
    ids = np.array([one.class_id for one in classifier.config.classes])
    with (
        rasterio.open(uninterrupted) as of_classes,
        rasterio.open(uninterrupted.with_stem("map_probabilities")) as read,
    ):
        class_map, percent = of_classes.read(1), read.read()
        assert read.descriptions == (*names, "confidence")
        assert (read.dtypes[0], read.nodata, set(read.units)) == ("uint8", 255, {"percent"})
        assert read.block_shapes[0] == (BLOCK, BLOCK)
        assert read.overviews(1)
        assert read.tags()["CALIBRATION"].startswith("calibrated on ")
    assert np.array_equal(percent[-1], percent[:-1].max(axis=0))
    assert np.abs(percent[:-1].sum(axis=0, dtype=int) - 100).max() <= len(names) / 2
    mapped = np.take_along_axis(percent[:-1], np.searchsorted(ids, class_map)[None], axis=0)[0]
    assert np.array_equal(mapped, percent[-1]), "the mapped class is the most probable one"
    labels = wide.read_scene("wide", ()).labels
    assert labels is not None
    right, confidence = (class_map == labels)[labels > 0], percent[-1][labels > 0]
    assert right[confidence >= 90].mean() > right[confidence < 50].mean() + 0.2


def test_unsure_pixels_have_a_class_of_their_own(
    classifier: Classifier, wide: Archive, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "map.tif"
    write_map(out, MapJob(classifier, wide["wide"], MapOptions(unsure=0.6, rows=20)))
    unsure = max(one.class_id for one in classifier.config.classes) + 1
    with (
        rasterio.open(out) as read,
        rasterio.open(uninterrupted) as certain,
        rasterio.open(uninterrupted.with_stem("map_probabilities")) as probabilities,
    ):
        found, confidence = read.read(1)[:20], probabilities.read(probabilities.count)[:20]
        assert read.tags()[f"CLASS_{unsure}"] == "unsure"
        assert read.tags()["UNSURE_BELOW"] == "0.6"
        red, green, blue, opaque = read.colormap(1)[unsure]
        assert red == green == blue
        assert opaque == 255
        kept = found != unsure
        assert np.array_equal(found[kept], certain.read(1)[:20][kept])
    assert (confidence[~kept] <= 60).all()
    assert (confidence[kept] >= 60).all()
    assert 0.01 < kept.mean() < 0.99
    assert "unsure" in out.with_name("map.tif.aux.xml").read_text()


@pytest.mark.parametrize(("ids", "unsure"), [((1, 4), 5), ((1, 255), 256), ((1, 2, 65535), 3)])
def test_unsure_takes_no_id_of_a_class(ids: tuple[int, ...], unsure: int) -> None:
    assert unsure_class([MappedClass(class_id, "name", "#336699") for class_id in ids]).class_id == unsure


@pytest.mark.parametrize(
    ("extra", "fault"),
    [
        (("--unsure", "60"), "--unsure 60: expected a probability above 0 and at most 1"),
        (("--workers", "0"), "--workers 0: expected at least 1"),
    ],
)
def test_options_out_of_range_end_with_one_line(
    model: Path, wide: Archive, tmp_path: Path, extra: tuple[str, str], fault: str
) -> None:
    ended = command("predict.py", *arguments(model, wide, tmp_path / "deep" / "map.tif"), *extra)
    assert (ended.status, ended.errors.strip()) == (2, f"error: {fault}")
    assert not list(tmp_path.iterdir())


def test_several_processes_without_ray_are_answered_with_what_installs_it(
    classifier: Classifier, wide: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_files, "installed", lambda library: library != "ray")
    with pytest.raises(
        BadInput, match=r"--workers 2: this needs the library ray: pip install 'diffclip-dist\[train\]'"
    ):
        write_map(tmp_path / "map.tif", MapJob(classifier, wide["wide"]), workers=2)
    assert not list(tmp_path.iterdir())
