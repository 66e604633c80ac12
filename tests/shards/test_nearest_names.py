"""A misspelt modality or class is answered with the nearest one."""

import json
from pathlib import Path

import pytest
import yaml
from small_study import build, write_small_scene

from shards.archive.archive import Archive
from shards.errors import BadInput


def test_a_modality_of_an_archives_scene(generated_archive: Path) -> None:
    with pytest.raises(BadInput, match=r"has no modality 'hight'; it has: hsi, height; did you mean height\?"):
        Archive.open(generated_archive)["small"].read(("hight",))


def test_a_class_of_a_vector_file(tmp_path: Path) -> None:
    folder = write_small_scene(tmp_path / "scene", "striped", labels=False)
    points = tmp_path / "scene" / "points.csv"
    points.write_text("row,col,class\n3,4,roof\n5,6,watr\n")
    scene = yaml.safe_load((folder / "scene.yaml").read_text())
    scene["labels"] = {"vectors": "points.csv", "attribute": "class", "classes": {1: "roof", 2: "water"}}
    (folder / "scene.yaml").write_text(json.dumps(scene))
    with pytest.raises(BadInput, match=r"unknown class 'watr'; expected one of .*; did you mean water\?"):
        build([str(folder)], tmp_path / "archive")
