"""benchmarks/language.py: scenes of materials, captions that are learned, and the command's rows."""

import json
import subprocess
import sys
from pathlib import Path

import language_pretraining
import numpy as np
import pytest
import torch
from material_scene import material_scene

from diffclip_dist.words.materials import MATERIALS
from diffclip_dist.words.spectral_library import read_library

COMMAND = Path(__file__).resolve().parents[2] / "benchmarks" / "language.py"


def test_a_scene_of_materials_is_drawn_from_its_seed() -> None:
    scene, same, other = (material_scene("made", seed, read_library(), side=16) for seed in (3, 3, 4))
    assert scene.generated
    assert scene.identity == same.identity != other.identity
    assert scene.labels is not None
    assert scene.classes is not None
    assert {MATERIALS[class_id - 1].name for class_id in np.unique(scene.labels)} == set(scene.classes.names.values())


def test_tokens_at_their_captions_lose_less_than_tokens_at_others() -> None:
    captions = language_pretraining.Captions.draw(np.random.default_rng(0))
    material_T = torch.arange(len(MATERIALS))
    own = language_pretraining.caption_loss(captions.vectors_ME, material_T, captions)
    others = language_pretraining.caption_loss(captions.vectors_ME.roll(7, dims=0), material_T, captions)
    assert 0.0 <= float(own) < float(others)


def test_a_wording_that_materials_share_is_no_negative() -> None:
    vectors_ME = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), dim=1)
    true_MM = torch.ones(2, 2, dtype=torch.bool)
    captions = language_pretraining.Captions(vectors_ME, true_MM)
    loss = language_pretraining.caption_loss(vectors_ME, torch.tensor([0, 1]), captions)
    # the tokens are told from no other caption; each caption has two tokens that are equally its own
    assert float(loss) == pytest.approx(np.log(2) / 2)


@pytest.mark.slow
def test_a_run_gives_rows_of_both_objectives(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    ended = subprocess.run(
        [sys.executable, str(COMMAND), "--quick", "--keep", str(tmp_path / "keep"), "--json", str(out)],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    rows = json.loads(out.read_text())["rows"]
    assert {row["part"] for row in rows} == {"means", "few-shot", "names alone"}
