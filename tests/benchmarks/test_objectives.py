"""benchmarks/objectives.py: its objectives, and the command's rows."""

import json
import subprocess
import sys
from copy import copy
from dataclasses import replace
from pathlib import Path

import many_scenes_rows
import numpy as np
import objectives_pretraining
import pytest
import torch
from objectives_pretraining import OBJECTIVES, ObjectiveScene, Sample
from plain_pretraining import MODEL

from diffclip_dist.model.contrast import draw_parts
from diffclip_dist.model.mask_diffusion import MaskDiffusion, sample_keys, weighted_loss
from shards.build.load_scene import load_scene

COMMAND = Path(__file__).resolve().parents[2] / "benchmarks" / "objectives.py"


@pytest.fixture(scope="module")
def sample() -> Sample:
    """Windows of a small generated scene."""
    scene = ObjectiveScene(load_scene(many_scenes_rows.generated_place("made", many_scenes_rows.FIRST_SEED, 24)))
    batch, labels_BN = scene.draw(64, np.random.default_rng(0))
    generator = torch.Generator().manual_seed(0)
    parts_B2K = draw_parts(torch.rand(64, MODEL.tokens, generator=generator), MODEL)
    return Sample(batch, labels_BN, parts_B2K, 0, scene, generator)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_gives_every_weight_of_the_encoder_a_gradient(objective: str, sample: Sample) -> None:
    torch.manual_seed(0)
    model = OBJECTIVES[objective](sample.scene.schemas)
    model(sample).backward()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in model.encoder.transformer.parameters())


def test_mask_diffusion_in_bands_loses_what_the_product_loses(sample: Sample) -> None:
    in_bands = copy(sample.scene)
    in_bands.components = {one.key: torch.eye(one.bands) for one in sample.scene.schemas}
    sample = replace(sample, scene=in_bands)
    torch.manual_seed(0)
    ours = objectives_pretraining.WhitenedReconstruction(sample.scene.schemas)
    torch.manual_seed(0)
    product = MaskDiffusion(objectives_pretraining.RECONSTRUCTION, sample.scene.schemas)
    keys_B = sample_keys(sample.batch, 0, 0)
    terms_LM = product(sample.batch, product.draw(sample.batch, keys_B)) / product.count(sample.batch, keys_B)
    torch.testing.assert_close(ours(sample), weighted_loss(terms_LM, objectives_pretraining.RECONSTRUCTION))


def test_contrast_of_parts_loses_what_the_product_loses_where_no_pixel_is_missing(sample: Sample) -> None:
    complete = {key: torch.ones_like(valid_BN) for key, valid_BN in sample.batch.valid.items()}
    sample = replace(sample, batch=replace(sample.batch, valid=complete, all_valid=True))
    torch.manual_seed(0)
    ours = objectives_pretraining.ContrastOfParts(sample.scene.schemas)
    projected = ours.contrast.project(ours.encoder, sample.batch, sample.parts_B2K)
    expected_M = ours.contrast(projected, sample.batch, sample.parts_B2K) / len(sample.parts_B2K)
    torch.testing.assert_close(ours(sample), expected_M.sum())


def test_hidden_groups_keep_some_bands_and_their_power() -> None:
    values_BNC = torch.ones(200, 3, 64)
    shown_BNC = objectives_pretraining.hide_groups(values_BNC, torch.Generator().manual_seed(0))
    hidden_BC = (shown_BNC == 0).all(dim=1)
    assert 0 < int(hidden_BC.sum(dim=1).max()) < 64
    torch.testing.assert_close(shown_BNC.square().mean(dim=2), torch.ones(200, 3))
    height_BN1 = torch.ones(5, 3, 1)
    assert objectives_pretraining.hide_groups(height_BN1, torch.Generator()) is height_BN1


def test_tokens_near_their_class_are_told_and_others_are_not(sample: Sample) -> None:
    parts = sample.labels_BN[:, None].expand(-1, 2, -1).gather(2, sample.parts_B2K)
    of_class = torch.nn.functional.one_hot(parts, int(sample.labels_BN.max()) + 1).float()
    told = objectives_pretraining.told_by_others((of_class[:, 0], of_class[:, 1]), sample)
    wrong = of_class.roll(1, dims=0)
    assert float(told) < float(objectives_pretraining.told_by_others((wrong[:, 0], wrong[:, 1]), sample))


@pytest.mark.slow
def test_a_run_is_kept_and_a_second_one_measures_nothing_anew(tmp_path: Path) -> None:
    def run(out: Path) -> list[dict[str, object]]:
        ended = subprocess.run(
            [sys.executable, str(COMMAND), "--quick", "--keep", str(tmp_path / "keep"), "--json", str(out)],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        rows: list[dict[str, object]] = json.loads(out.read_text())["rows"]
        return rows

    rows = run(tmp_path / "first.json")
    assert {row["part"] for row in rows} == {"means", "scenes"}
    encoders = list((tmp_path / "keep").glob("encoders/*/*.safetensors"))
    written = [file.stat().st_mtime_ns for file in encoders]
    assert written
    assert run(tmp_path / "second.json") == rows
    assert [file.stat().st_mtime_ns for file in encoders] == written
