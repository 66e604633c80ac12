"""Folders of classifiers and encoders from strangers: each is loaded, or refused in one line; no other end."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from changed_bytes import changed_bytes
from corruptions import NASTY, leaves
from small_study import Study

from diffclip_dist.fewshot.classifier import load_classifier
from diffclip_dist.model.saved_encoder import load_encoder
from shards.errors import BadInput

COUNT = 150  # of each kind, for each folder
HEADER = 4000  # bytes of weights that name tensors, their types, shapes and places


@pytest.fixture(scope="module")
def folders(study: Study, encoder: Path) -> dict[str, Path]:
    return {"classifier": study.folder / "model-4shot", "encoder": encoder}


def refusal(kind: str, folder: Path) -> str | None:
    """What refuses a folder; None where it is loaded."""
    try:
        load_classifier(folder) if kind == "classifier" else load_encoder(folder)
    except BadInput as refused:
        return str(refused)
    return None


def loads_or_is_refused_in_one_line(kind: str, folder: Path) -> bool:
    """Whether it is loaded."""
    said = refusal(kind, folder)
    assert said is None or (str(folder) in said and "\n" not in said)
    return said is None


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_fields_of_any_kind_are_taken_or_refused(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(folders[kind], folder)
    whole = (folder / "config.json").read_text()
    rng = np.random.default_rng(0)
    taken = 0
    for _ in range(COUNT):
        plain = json.loads(whole)
        for _ in range(rng.integers(1, 3)):
            places = leaves(plain)
            container, key = places[rng.integers(len(places))]
            if rng.integers(4) == 0:
                del container[key]
            else:
                container[key] = NASTY[rng.integers(len(NASTY))]
        (folder / "config.json").write_text(json.dumps(plain))
        taken += loads_or_is_refused_in_one_line(kind, folder)
    assert taken < COUNT / 2, "nearly nothing is checked"


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
@pytest.mark.parametrize("name", ["config.json", "weights"])
def test_bytes_of_any_kind_are_taken_or_refused(kind: str, name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(folders[kind], folder)
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"weights_sha256": ""}))  # which anyone can leave out
    (file,) = [config] if name == "config.json" else folder.glob("*.safetensors")
    whole = file.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(COUNT):
        file.write_bytes(changed_bytes(whole, rng, HEADER))
        loads_or_is_refused_in_one_line(kind, folder)
