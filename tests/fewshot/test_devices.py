"""Few-shot classifiers are fitted, and classify, wherever their encoder lies."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from pretend_device import PRETENDED, pretend_device

from diffclip_dist.feature_extraction.scene_view import encoder_for_scene
from diffclip_dist.fewshot.adaptation import adapted_to_scene
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.kernel_head import squared_distances
from diffclip_dist.model.saved_encoder import load_encoder
from diffclip_dist.study.experiment import Task, run_task
from shards.archive.archive import Archive

TASK = Task((1, 3), 2, "random", "scratch")


@pytest.mark.parametrize("head", ["kernel", "cosine"])
def test_a_study_follows_its_encoder_to_a_device(
    archive: Archive, encoder: Path, head: Literal["kernel", "cosine"]
) -> None:
    config = FewshotConfig(head=head, statistics_windows=20, steps=10, views=2)
    scene = archive.read_scene("town")
    model = encoder_for_scene(load_encoder(encoder), scene.record, str(encoder))
    expected = run_task(scene, model, TASK, config)
    with pretend_device() as device:
        found = run_task(scene, model.to(device), TASK, config)
    assert np.array_equal(found.maps[3], expected.maps[3])
    for one, other in zip(found.runs, expected.runs, strict=True):
        assert one.fitted.text_CE.device == PRETENDED
        assert {buffer.device for buffer in one.fitted.head.buffers()} == {PRETENDED}
        assert one.fitted.calibration.temperature == pytest.approx(other.fitted.calibration.temperature, rel=1e-4)
        assert np.array_equal(one.scores.confusion, other.scores.confusion)


def test_the_pretended_device_refuses_what_a_gpu_refuses() -> None:
    with pretend_device() as device:
        there = torch.ones(3, device=device)
        with pytest.raises(RuntimeError, match="one device"):
            there + torch.ones(3)
        with pytest.raises((RuntimeError, TypeError)):
            there.numpy()
        assert torch.equal((there * 2 + torch.tensor(1.0)).cpu(), torch.full((3,), 3.0))
        assert there.tolist() == [1.0, 1.0, 1.0]
        assert float(there.sum()) == 3.0


def test_a_classifier_adapts_to_another_scene_where_it_lies(archive: Archive, encoder: Path) -> None:
    config = FewshotConfig(head="kernel", statistics_windows=20)
    scene = archive.read_scene("town")
    model = encoder_for_scene(load_encoder(encoder), scene.record, str(encoder))
    fitted = run_task(scene, model, TASK, config).of_shots(3)[0].fitted
    modalities = scene.record.modalities
    expected = adapted_to_scene(fitted, archive["plain"], modalities, config)
    with pretend_device() as device:
        found = adapted_to_scene(fitted.to(device), archive["plain"], modalities, config)
        for one, other in zip((found, *found.by_pattern), (expected, *expected.by_pattern), strict=True):
            assert one.head.offset_E.device == PRETENDED
            assert torch.allclose(one.head.offset_E.cpu(), other.head.offset_E, atol=1e-4)


def test_distances_by_a_matrix_product_are_those_of_differences() -> None:
    """To a millionth of the variance, which the kernels divide by."""
    made = torch.Generator().manual_seed(0)
    one_PK, other_QK = torch.randn(400, 64, generator=made), torch.randn(300, 64, generator=made)
    expected_PQ = torch.cdist(one_PK.double(), other_QK.double()).square()
    with pretend_device() as device:
        found_PQ = squared_distances(one_PK.to(device), other_QK.to(device)).cpu()
        same_PP = squared_distances(one_PK.to(device), one_PK.to(device)).cpu()
    variance = float(one_PK.square().sum(dim=1).mean())
    assert (found_PQ - expected_PQ).abs().max() < 4e-6 * variance
    assert 0.0 <= same_PP.diagonal().max() < 4e-6 * variance
