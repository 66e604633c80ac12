"""The picture of a scene, and what it is drawn from."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from small_scenes import ShardCommand, pixels

from shards.archive.archive import Archive
from shards.archive.manifest import ModalityRecord
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.open_scene import open_scene
from shards.preview.overview import overview, shown_bands
from shards.preview.preview import draw_preview
from shards.scene.array_scene import ArrayScene
from shards.scene.source import Classes


def modality(wavelengths: tuple[float, ...] | None, bands: int, dead: tuple[int, ...] = ()) -> ModalityRecord:
    mean, std = (0.0,) * bands, (1.0,) * bands
    return ModalityRecord("hsi", bands, "float32", wavelengths, None, (), mean, std, dead, 1, float("nan"))


@pytest.mark.parametrize(
    ("record", "bands", "word"),
    [
        (modality((440, 470, 550, 655, 900), 5), (3, 2, 1), "true colour"),
        (modality((470, 550, 655, 660, 900), 5, dead=(3,)), (3, 1, 0), "true colour"),
        (modality((560, 650, 850), 3), (2, 1, 0), "near infrared"),
        (modality((1500, 1600, 2100, 2200), 4), (3, 2, 1), "bands 4, 3, 2"),
        (modality(None, 6), (5, 3, 1), "bands 6, 4, 2"),
        (modality(None, 1), (0,), "hsi"),
    ],
)
def test_bands_are_chosen_by_wavelength(record: ModalityRecord, bands: tuple[int, ...], word: str) -> None:
    shown = shown_bands(record)
    assert shown.bands == bands
    assert word in shown.title


def test_a_scene_seen_small_is_every_so_many_pixels_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.preview.overview.LARGEST_SIDE", 10)
    values = pixels(37, 25, 4)
    values[5:9, :12] = np.nan
    labels = np.random.default_rng(0).integers(0, 3, (37, 25)).astype(np.uint16)
    classes = Classes({1: "one", 2: "two", 9: "nowhere"})
    scene = ArrayScene("any", {"hsi": values}, classes=classes, labels=labels)
    build_archive([scene], tmp_path / "archive", ArchiveSettings(tile_size=7, halo=0, samples_per_shard=2))
    small = overview(Archive.open(tmp_path / "archive"), "any")
    assert small.step == 4
    bands = list(small.shown["hsi"].bands)
    np.testing.assert_array_equal(small.pictures["hsi"], values[::4, ::4, bands])
    np.testing.assert_array_equal(small.valid["hsi"], np.isfinite(values[::4, ::4, 0]))
    np.testing.assert_array_equal(small.labels, labels[::4, ::4])
    spectra = small.spectra["hsi"]
    assert sorted(spectra) == [0, 1, 2]
    np.testing.assert_allclose(spectra[2], np.nanmean(values[labels == 2], axis=0), rtol=1e-6)


def test_preview_draws_every_scene_and_says_what_is_generated(
    plain_scene: Path, tmp_path: Path, shard_command: ShardCommand
) -> None:
    archive = tmp_path / "archive"
    assert shard_command(plain_scene, "synthetic", "--out", archive).status == 0
    before = sorted(archive.rglob("*"))
    outcome = shard_command("--preview", archive, "--out", tmp_path / "pictures")
    assert outcome.status == 0, outcome.err
    assert outcome.out.split() == [str(tmp_path / "pictures" / f"{name}.png") for name in ("place", "synthetic")]
    for name in ("place", "synthetic"):
        picture = matplotlib.image.imread(tmp_path / "pictures" / f"{name}.png")
        assert min(picture.shape[:2]) > 300
        assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 20
    assert sorted(archive.rglob("*")) == before
    opened = Archive.open(archive)
    titles = {name: draw_preview(overview(opened, name)).get_suptitle() for name in ("place", "synthetic")}
    assert "generated" in titles["synthetic"]
    assert "generated" not in titles["place"]


def test_the_legend_names_every_class(plain_scene: Path, tmp_path: Path) -> None:
    build_archive([open_scene(str(plain_scene))], tmp_path / "archive", ArchiveSettings())
    figure = draw_preview(overview(Archive.open(tmp_path / "archive"), "place"))
    texts = [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    assert {"1 grass", "3 roof"} <= set(texts)


def test_preview_of_nothing_is_bad_input(tmp_path: Path, plain_scene: Path, shard_command: ShardCommand) -> None:
    assert shard_command("--preview", tmp_path / "none").status == 2
    assert shard_command(plain_scene, "--preview", tmp_path / "none").status == 2
