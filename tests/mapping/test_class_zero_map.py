"""A scene in which 0 is a class, from its files over shots to a map: figures and map show the user's own ids."""

import json
import re
from pathlib import Path

import numpy as np
import rasterio
import yaml
from small_study import build, command, write_encoder

HEIGHT, WIDTH = 30, 34
GONE = 4


def test_a_map_has_class_zero_apart_from_no_data(tmp_path: Path) -> None:
    """As in Sen1Floods11: 0 land, 1 water, -1 unlabelled."""
    cover = (np.arange(WIDTH) // 5 % 2 * np.ones((HEIGHT, 1))).astype(np.int16)
    spectra = np.array([[9.0, 8, 7, 9], [1, 1, 0, 0]])[cover] + np.random.default_rng(0).normal(
        0, 0.3, (HEIGHT, WIDTH, 4)
    )
    spectra[:GONE] = np.nan
    np.save(tmp_path / "s1.npy", spectra.astype(np.float32))
    np.save(tmp_path / "gt.npy", np.where(np.arange(HEIGHT)[:, None] % 3 == 0, -1, cover))
    labels = {"files": "gt.npy", "ignore": [-1], "classes": {0: "land", 1: "water"}}
    content = {"name": "flood", "modalities": {"s1": {"files": "s1.npy"}}, "labels": labels}
    (tmp_path / "scene.yaml").write_text(yaml.safe_dump(content))
    archive = build([str(tmp_path)], tmp_path / "built")
    encoder = write_encoder(archive, "flood", tmp_path / "encoder")
    study = tmp_path / "study"
    arguments = ("--archive", tmp_path / "built", "--encoder", encoder, "--shots", 2, "--seeds", 1, "--out", study)
    ended = command("fewshot.py", *arguments)
    assert ended.status == 0, ended.errors
    results = json.loads((study / "results.json").read_text())
    assert results["classes"] == {"0": "land", "1": "water"}
    assert set(results["shots"]["2"]["per_class"]) == {"land", "water"}
    assert results["shots"]["2"]["oa"]["mean"] > 90
    out = tmp_path / "map.tif"
    ended = command(
        "predict.py",
        "--model",
        study / "model-2shot",
        "--archive",
        tmp_path / "built",
        "--scene",
        "flood",
        "--out",
        out,
    )
    assert ended.status == 0, ended.errors
    for file in (out, study / "maps" / "2shot.tif"):
        with rasterio.open(file) as raster:
            ids, nodata, colours = raster.read(1), raster.nodata, raster.colormap(1)
            assert (raster.tags()["CLASS_0"], raster.tags()["CLASS_1"]) == ("land", "water")
            np.testing.assert_array_equal(raster.dataset_mask()[GONE:] > 0, True)
        assert nodata not in (0, 1)
        assert (ids[:GONE] == nodata).all()
        assert (ids[GONE:] == cover[GONE:]).mean() > 0.9
        assert colours[0][3] == colours[1][3] == 255
        assert colours[int(nodata)][3] == 0
        names = re.findall("<Category>(.*?)</Category>", Path(f"{file}.aux.xml").read_text())
        assert names == ["land", "water"]
