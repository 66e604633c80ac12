"""Inputs as users have them, written by scripts that lie outside the repository; each comes out with its values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from small_scenes import Outcome, ShardCommand

from shards.archive.archive import Archive, Scene

Case = Callable[[str], Path]
Truth = tuple[np.ndarray, np.ndarray]


def build(folder: Path, shard_command: ShardCommand, out: Path, **changes: Any) -> tuple[Scene, Outcome]:
    """Builds a case's scene, with other fields in its first modality, and reads it back."""
    scene_file = folder / "scene.yaml"
    content = yaml.safe_load(scene_file.read_text())
    next(iter(content["modalities"].values())).update(changes)
    scene_file.write_text(yaml.safe_dump(content, sort_keys=False))
    outcome = shard_command(folder, "--out", out)
    assert outcome.status == 0, outcome.err
    return Archive.open(out).read_scene("s"), outcome


@pytest.fixture
def truth(shared_case: Case) -> Truth:
    """The cases' spectra (row, col, band) and labels (row, col)."""
    folder = shared_case("00-base")
    with rasterio.open(folder / "hsi.tif") as spectra, rasterio.open(folder / "gt.tif") as labels:
        return np.moveaxis(spectra.read(), 0, -1), labels.read(1)


def refused(folder: Path, shard_command: ShardCommand, out: Path) -> str:
    """What is said of a case that must be refused."""
    outcome = shard_command(folder, "--out", out)
    assert outcome.status == 2
    assert not out.exists()
    return outcome.err


@pytest.mark.parametrize(("name", "bands"), [("03-bandfiles", [0, 2, 4, 6]), ("03c-bands-with-gap", [0, 6])])
def test_band_files(
    name: str, bands: list[int], shared_case: Case, shard_command: ShardCommand, tmp_path: Path, truth: Truth
) -> None:
    folder = shared_case(name)
    assert "stack: true" in refused(folder, shard_command, tmp_path / "out")
    scene, _ = build(folder, shard_command, tmp_path / "out", stack=True)
    valid = np.ones(truth[1].shape, bool)
    valid[: 10 if name == "03c-bands-with-gap" else 0] = False
    np.testing.assert_array_equal(scene.valid["s2"], valid)
    np.testing.assert_array_equal(scene.values["s2"][valid], truth[0][..., bands][valid])
    assert scene.record.modality("s2").band_names == ("B02", "B03", "B04", "B08")[: len(bands)]


def test_alpha(shared_case: Case, shard_command: ShardCommand, tmp_path: Path, truth: Truth) -> None:
    scene, _ = build(shared_case("07-alpha"), shard_command, tmp_path / "out")
    assert not scene.valid["hsi"][:, :10].any()
    np.testing.assert_array_equal(scene.values["hsi"][:, 10:], truth[0][:, 10:, :4])


def test_empty_bands(shared_case: Case, shard_command: ShardCommand, tmp_path: Path, truth: Truth) -> None:
    scene, outcome = build(shared_case("09-enmap-empty-bands"), shard_command, tmp_path / "out")
    np.testing.assert_array_equal(scene.values["hsi"], np.delete(truth[0], 5, axis=2))
    assert "band 6" in outcome.err


def test_control_points(shared_case: Case, shard_command: ShardCommand, tmp_path: Path) -> None:
    assert "gdalwarp" in refused(shared_case("19-gcps-only"), shard_command, tmp_path / "out")


def test_brackets(shared_case: Case, shard_command: ShardCommand, tmp_path: Path, truth: Truth) -> None:
    scene, _ = build(shared_case("26-brackets-folder") / "Potsdam [v2]", shard_command, tmp_path / "out")
    np.testing.assert_array_equal(scene.values["hsi"], truth[0])


def test_no_crs(shared_case: Case, shard_command: ShardCommand, tmp_path: Path, truth: Truth) -> None:
    folder = shared_case("29-nc-no-crs")
    assert "hsi.nc: carries no CRS" in refused(folder, shard_command, tmp_path / "out").replace(" (refl)", "")
    scene, _ = build(folder, shard_command, tmp_path / "out", crs="EPSG:32633")
    np.testing.assert_array_equal(scene.values["hsi"], truth[0])
    np.testing.assert_array_equal(scene.labels, truth[1])


def test_swath(shared_case: Case, shard_command: ShardCommand, tmp_path: Path, truth: Truth) -> None:
    scene, outcome = build(shared_case("30-latlon-2d"), shard_command, tmp_path / "out")
    np.testing.assert_array_equal(scene.values["hsi"], truth[0])
    assert "gdalwarp" in outcome.err


def test_counts_with_an_offset(shared_case: Case, shard_command: ShardCommand, tmp_path: Path, truth: Truth) -> None:
    scene, _ = build(shared_case("42-dn-plus-1000"), shard_command, tmp_path / "out")
    np.testing.assert_allclose(scene.values["hsi"], truth[0] * 1e-4, atol=1e-6)
