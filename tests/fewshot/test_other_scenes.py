"""Scenes that differ from the one that an encoder or a classifier knows: other units, other wavelengths, more bands."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import yaml
from small_study import Ended, build, command, write_encoder, write_small_scene

import diffclip_dist as dc
from shards.archive.archive import Archive
from shards.errors import BadInput

CENTRES_NM = [450.0, 550.0, 650.0, 750.0, 850.0, 950.0]
FINE_NM = [425.0 + 25.0 * band for band in range(24)]
Bands = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Known:
    """A scene that an encoder and a classifier know, with their results."""

    archive: Archive
    encoder: Path
    model: Path
    class_map: npt.NDArray[np.uint8]
    results: dict[str, object]


def scene_archive(folder: Path, name: str, hsi: Bands | None = None, wavelengths: list[float] | None = None) -> Archive:
    """The small scene with other bands."""
    written = write_small_scene(folder / name, name)
    if hsi is not None:
        np.save(written / "hsi.npy", hsi)
    content = yaml.safe_load((written / "scene.yaml").read_text())
    if wavelengths is not None:
        content["modalities"]["hsi"]["wavelengths"] = wavelengths
    (written / "scene.yaml").write_text(yaml.safe_dump(content))
    return build([str(written)], folder / f"{name}-built")


def fewshot(archive: Archive, encoder: Path, out: Path, *options: object) -> Ended:
    return command(
        "fewshot.py", "--archive", archive.location, "--encoder", encoder, "--shots", "4", "--seeds", 2, "--out", out,
        *options,
    )  # fmt: skip


def predict(known: Known, archive: Archive, out: Path, *options: object) -> Ended:
    name = archive.manifest.scenes[0].name
    return command(
        "predict.py", "--model", known.model, "--archive", archive.location, "--scene", name, "--out", out, *options
    )


def read_map(file: Path) -> npt.NDArray[np.uint8]:
    with rasterio.open(file) as read:
        found: npt.NDArray[np.uint8] = read.read(1)
    return found


def one_line(ended: Ended) -> str:
    """The line that a refused command ended with."""
    assert ended.status == 2, ended.errors
    lines = ended.errors.strip().splitlines()
    assert len(lines) == 1, ended.errors
    return lines[0]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    folder = tmp_path_factory.mktemp("known")
    archive = scene_archive(folder, "town", wavelengths=CENTRES_NM)
    encoder = write_encoder(archive, "town", folder / "encoder")
    ended = fewshot(archive, encoder, folder / "study")
    assert ended.status == 0, ended.errors
    results = json.loads((folder / "study" / "results.json").read_text())
    class_map = np.asarray(dc.predict_map(folder / "study" / "model-4shot", archive["town"]))
    return Known(archive, encoder, folder / "study" / "model-4shot", class_map, results)


@pytest.fixture(scope="module")
def hsi(known: Known) -> Bands:
    return known.archive.read_scene("town").values["hsi"]


@pytest.mark.parametrize(
    ("scale", "offset", "told"),
    [
        (10_000.0, 0.0, "its values are about 10,000 times those"),
        (0.0001, 0.0, "its values are about 0.0001 times those"),
        (1.0, 5.0, "its values lie about 5 above those"),
        (1.0, -5.0, "its values lie about 5 below those"),
    ],
)
def test_other_units_are_refused(
    known: Known, hsi: Bands, tmp_path: Path, scale: float, offset: float, told: str
) -> None:
    other = scene_archive(tmp_path, "other", hsi * np.float32(scale) + np.float32(offset), CENTRES_NM)
    line = one_line(predict(known, other, tmp_path / "map.tif"))
    assert f"scene other: modality hsi: {told} that the classifier knows" in line
    assert "scale:" in line
    assert "--trust-units" in line
    line = one_line(fewshot(other, known.encoder, tmp_path / "study"))
    assert f"scene other: modality hsi: {told} that {known.encoder} knows" in line
    assert not (tmp_path / "map.tif").exists()
    assert not (tmp_path / "study").exists()


def test_other_units_are_taken_on_trust(known: Known, hsi: Bands, tmp_path: Path) -> None:
    other = scene_archive(tmp_path, "other", hsi * np.float32(10_000), CENTRES_NM)
    assert predict(known, other, tmp_path / "map.tif", "--trust-units").status == 0
    assert read_map(tmp_path / "map.tif").any()
    assert fewshot(other, known.encoder, tmp_path / "study", "--trust-units").status == 0
    # an encoder reads a scene by the scene's own statistics, so units alone change no figure
    found = json.loads((tmp_path / "study" / "results.json").read_text())
    expected = known.results["shots"]["4"]["oa"]["mean"]  # type: ignore[index]
    assert found["shots"]["4"]["oa"]["mean"] == pytest.approx(expected, abs=0.5)


def test_another_place_in_the_same_units_is_taken(known: Known, hsi: Bands, tmp_path: Path) -> None:
    brighter = scene_archive(tmp_path, "brighter", hsi[:, ::-1] * np.float32(1.4), CENTRES_NM)
    assert predict(known, brighter, tmp_path / "map.tif").status == 0
    assert fewshot(brighter, known.encoder, tmp_path / "study").status == 0


def test_an_encoder_without_statistics_is_not_compared(known: Known, hsi: Bands, tmp_path: Path) -> None:
    older = write_encoder(known.archive, "town", tmp_path / "older")
    content = json.loads((older / "config.json").read_text())
    del content["statistics"]
    (older / "config.json").write_text(json.dumps(content))
    counts = scene_archive(tmp_path, "counts", hsi * np.float32(10_000), CENTRES_NM)
    assert fewshot(counts, older, tmp_path / "study").status == 0


def test_other_wavelengths_are_refused_by_band(known: Known, hsi: Bands, tmp_path: Path) -> None:
    shifted = scene_archive(tmp_path, "shifted", hsi, [nm + 60.0 for nm in CENTRES_NM])
    line = one_line(predict(known, shifted, tmp_path / "map.tif"))
    told = "band 1 lies at 510 nm, expected band 1 at 450 nm, at most 22.5 nm off, and 5 more bands disagree"
    assert f"scene shifted: modality hsi: the classifier has other wavelengths: {told}" in line
    assert "--map-bands" in line
    line = one_line(fewshot(shifted, known.encoder, tmp_path / "study"))
    assert f"scene shifted: modality hsi: {known.encoder} has other wavelengths: {told}" in line
    one_off = scene_archive(tmp_path, "one-off", hsi, [*CENTRES_NM[:4], 800.0, 950.0])
    line = one_line(predict(known, one_off, tmp_path / "map.tif"))
    assert "band 5 lies at 800 nm, expected band 5 at 850 nm, at most 42.5 nm off;" in line
    nearly = scene_archive(tmp_path, "nearly", hsi, [nm + 20.0 for nm in CENTRES_NM])
    assert predict(known, nearly, tmp_path / "map.tif").status == 0
    assert np.array_equal(read_map(tmp_path / "map.tif"), known.class_map)


def test_unknown_wavelengths_leave_nothing_to_compare(known: Known, hsi: Bands, tmp_path: Path) -> None:
    unknown = scene_archive(tmp_path, "unknown", hsi)
    assert predict(known, unknown, tmp_path / "map.tif").status == 0
    assert np.array_equal(read_map(tmp_path / "map.tif"), known.class_map)
    fewer = scene_archive(tmp_path, "fewer", hsi[..., :4])
    line = one_line(predict(known, fewer, tmp_path / "fewer.tif", "--map-bands"))
    assert "scene fewer: modality hsi: has 4 bands, and the classifier expects 6" in line


def test_the_nearest_bands_stand_for_the_known_ones(known: Known, hsi: Bands, tmp_path: Path) -> None:
    fine = np.random.default_rng(1).normal(0, 50, (*hsi.shape[:2], len(FINE_NM))).astype(np.float32)
    # a metre off, in another order, and with bands between
    order = [3, 21, 0, 9, 13, 17]
    fine_nm = list(FINE_NM)
    for place, band in enumerate(order):
        fine[..., band] = hsi[..., place]
        fine_nm[band] = CENTRES_NM[place] + 3.0
    for band in set(range(len(FINE_NM))) - set(order):
        fine_nm[band] = 1500.0 + 10 * band
    archive = scene_archive(tmp_path, "fine", fine, fine_nm)
    out = tmp_path / "map.tif"
    line = one_line(predict(known, archive, out))
    assert "has 24 bands, and the classifier expects 6; --map-bands takes the nearest by wavelength" in line
    ended = predict(known, archive, out, "--map-bands")
    assert ended.status == 0, ended.errors
    assert np.array_equal(read_map(out), known.class_map)
    assert np.array_equal(dc.predict_map(known.model, archive["fine"], map_bands=True), known.class_map)
    ended = fewshot(archive, known.encoder, tmp_path / "study", "--map-bands")
    assert ended.status == 0, ended.errors
    found = json.loads((tmp_path / "study" / "results.json").read_text())
    assert found["shots"] == known.results["shots"]
    # what was learned from picked bands picks them again
    learned = tmp_path / "study" / "model-4shot"
    assert np.array_equal(dc.predict_map(learned, archive["fine"], map_bands=True), known.class_map)
    features = dc.features(archive["fine"], str(known.encoder), map_bands=True)
    np.testing.assert_array_equal(features, dc.features(known.archive["town"], str(known.encoder)))


def test_a_band_that_is_too_far_is_not_taken(known: Known, hsi: Bands, tmp_path: Path) -> None:
    short = scene_archive(tmp_path, "short", hsi[..., :5], CENTRES_NM[:5])
    line = one_line(predict(known, short, tmp_path / "map.tif", "--map-bands"))
    assert "scene short: modality hsi: --map-bands: no band is near enough to one that the classifier has" in line
    assert "band 5 lies at 850 nm, expected band 6 at 950 nm, at most 47.5 nm off" in line
    with pytest.raises(BadInput, match="no band is near enough"):
        dc.features(short["short"], str(known.encoder), map_bands=True)
