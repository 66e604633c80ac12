"""STAC items of scenes and maps, as pystac reads and validates them."""

import itertools
import json
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import yaml
from affine import Affine
from pystac.extensions.projection import ProjectionExtension
from rasterio.warp import transform_bounds

from diffclip_dist.cli.main import script_main
from diffclip_dist.fewshot.classifier import MappedClass
from diffclip_dist.mapping.geotiff import map_writer
from shards.archive.archive import Archive
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.open_scene import open_scene

HEIGHT, WIDTH = 20, 30
TIME = "2022-07-24T12:15:00+02:00"
NORTH_UP = Affine(30, 0, 600_000, 0, -30, 5_000_000)
BOUNDS = (600_000, 5_000_000 - 30 * HEIGHT, 600_000 + 30 * WIDTH, 5_000_000)


def build(folder: Path, crs: str | None = "EPSG:32633", transform: Affine = NORTH_UP) -> Path:
    """An archive of one placed scene with a class 0."""
    random = np.random.default_rng(0)
    profile = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "count": 2, "dtype": "int16", "nodata": -5}
    place = {} if crs is None else {"crs": crs, "transform": transform}
    with rasterio.open(folder / "msi.tif", "w", **profile, **place) as file:
        file.write(random.integers(1, 100, (2, HEIGHT, WIDTH)).astype(np.int16))
    np.save(folder / "gt.npy", (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 3).astype(np.uint8))
    labels = {"files": "gt.npy", "ignore": [2], "classes": {0: "open land", 1: "water"}}
    msi = {"files": "msi.tif", "wavelengths": [560, 665]}
    scene = {"name": "valley", "modalities": {"msi": msi}, "labels": labels}
    (folder / "scene.yaml").write_text(yaml.safe_dump(scene))
    build_archive([open_scene(str(folder))], folder / "archive", ArchiveSettings(tile_size=16, halo=2))
    return folder / "archive"


def write_item(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Runs the command in this process."""
    monkeypatch.setattr("sys.argv", ["stac.py", *map(str, arguments)])
    return script_main("stac")


def read_item(file: Path) -> pystac.Item:
    """The item, after it was held to STAC's own schema, which pystac has with it."""
    content = json.loads(file.read_text())
    core = pystac.Item.from_dict(content | {"stac_extensions": []})
    core.validate()
    return pystac.Item.from_file(str(file))


def test_a_scenes_item_says_where_when_and_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = build(tmp_path)
    out = tmp_path / "valley.json"
    assert write_item(monkeypatch, archive, "--datetime", TIME, "--out", out) == 0
    item = read_item(out)
    assert item.id == "valley"
    assert item.datetime is not None
    assert item.datetime.isoformat() == "2022-07-24T10:15:00+00:00"
    assert item.bbox == pytest.approx(transform_bounds("EPSG:32633", "EPSG:4326", *BOUNDS), abs=1e-6)
    (ring,) = item.geometry["coordinates"]
    assert ring[0] == ring[-1]
    area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in itertools.pairwise(ring))
    assert area > 0  # counter-clockwise, as GeoJSON wants it
    projection = ProjectionExtension.ext(item)
    assert projection.code == "EPSG:32633"
    assert projection.shape == [HEIGHT, WIDTH]
    assert projection.transform == list(NORTH_UP)[:6]
    msi, labels = item.assets["msi"], item.assets["labels"]
    assert [band["eo:center_wavelength"] for band in msi.extra_fields["bands"]] == [0.56, 0.665]
    assert msi.extra_fields["nodata"] == -5
    assert {one["value"]: (one["name"], one["title"]) for one in labels.extra_fields["classification:classes"]} == {
        0: ("open_land", "open land"),
        1: ("water", "water"),
    }
    for asset in item.assets.values():
        assert (tmp_path / asset.href).exists()


@pytest.mark.parametrize("transform", [Affine(30, 0, 600_000, 0, 30, 5_000_000), Affine(20, 9, 600_000, 9, -20, 5e6)])
def test_a_turned_scene_is_outlined_counter_clockwise(
    transform: Affine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "valley.json"
    assert write_item(monkeypatch, build(tmp_path, transform=transform), "--datetime", TIME, "--out", out) == 0
    (ring,) = read_item(out).geometry["coordinates"]
    assert sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in itertools.pairwise(ring)) > 0


def test_a_maps_item_has_its_classes_and_the_files_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Archive.open(build(tmp_path)).scene("valley")
    classes = [MappedClass(1, "open land", "#aa8800", 1), MappedClass(2, "water", "#0000ff", 1)]
    (tmp_path / "maps").mkdir()
    file = tmp_path / "maps" / "valley.tif"
    with map_writer(file, "uint8", record, classes, {"GENERATED": "false"}) as write:
        write(0, 0, np.ones((HEIGHT, WIDTH), np.uint8))
    file.with_suffix(".png").write_bytes(b"")
    out = tmp_path / "items.json"
    assert write_item(monkeypatch, file, "--datetime", "2022-07-01T00:00:00Z/2022-07-31T00:00:00Z", "--out", out) == 0
    item = read_item(out)
    assert item.datetime is None
    assert item.common_metadata.start_datetime is not None
    assert item.common_metadata.start_datetime.isoformat() == "2022-07-01T00:00:00+00:00"
    assert item.bbox == pytest.approx(transform_bounds("EPSG:32633", "EPSG:4326", *BOUNDS), abs=1e-6)
    assert item.assets["map"].href == "maps/valley.tif"
    assert item.assets["map"].extra_fields["classification:classes"] == [
        {"value": 0, "name": "open_land", "title": "open land", "color_hint": "AA8800"},
        {"value": 1, "name": "water", "title": "water", "color_hint": "0000FF"},
    ]
    assert item.assets["thumbnail"].href == "maps/valley.png"
    assert "probabilities" not in item.assets


def test_what_cannot_become_an_item_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = build(tmp_path, crs=None)
    out = tmp_path / "valley.json"
    cases = {
        (archive, "--datetime", TIME): "no CRS",
        (archive, "--datetime", "yesterday"): "expected a time with its zone",
        (archive, "--datetime", "2022-07-24T10:15:00"): "expected a time with its zone",
        (archive, "--datetime", "2022-07-25T00:00:00Z/2022-07-24T00:00:00Z"): "START/END in their order",
        (archive, "--datetime", TIME, "--scene", "vale"): "did you mean valley?",
        (tmp_path / "msi.tif", "--datetime", TIME): "no class names in its tags",
        (tmp_path / "scene.yaml", "--datetime", TIME): "expected an archive's folder or a map",
    }
    for arguments, said in cases.items():
        assert write_item(monkeypatch, *arguments, "--out", out) == 2
        told = capsys.readouterr().err
        assert said in told
        assert told.count("\n") == 1
    assert not out.exists()
