"""The contrast between two parts of a window: what is compared, what does not count, and that nothing else changes."""

import math
from dataclasses import replace

import pytest
import torch

from diffclip_dist import randomness
from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.contrast import draw_parts, seen_in_both
from diffclip_dist.model.mask_diffusion import (
    MaskDiffusion,
    draw_noise_and_masks,
    loss_terms,
    sample_keys,
    token_counts,
    weighted_loss,
)
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.train.pretrain_config import PretrainConfig
from shards.errors import BadInput

HSI = ModalitySchema("hsi", 9)


@pytest.fixture
def contrasting(config: ModelConfig) -> ModelConfig:
    return replace(config, contrast_weight=1.0, contrast_group=2)


def scores(config: ModelConfig, windows: int = 20) -> torch.Tensor:
    return randomness.uniform(randomness.keys(torch.arange(windows), 7), config.tokens)


@pytest.mark.parametrize("mask_ratio", [0.0, 0.7])
def test_the_parts_of_a_window_share_no_pixel(config: ModelConfig, mask_ratio: float) -> None:
    parts_B2K = draw_parts(scores(config), replace(config, mask_ratio=mask_ratio))
    for one_K, other_K in parts_B2K.tolist():
        assert len({*one_K, *other_K}) == len(one_K) + len(other_K)


def sums_of(model: MaskDiffusion, batch: WindowBatch, config: ModelConfig) -> torch.Tensor:
    found: torch.Tensor = model(batch, draw_noise_and_masks(batch, config, 0, 3))
    return found


def test_mask_diffusion_is_the_same_beside_a_contrast(
    config: ModelConfig, contrasting: ModelConfig, batch: WindowBatch
) -> None:
    torch.manual_seed(0)
    alone = MaskDiffusion(config, batch.schemas)
    torch.manual_seed(0)
    both = MaskDiffusion(contrasting, batch.schemas)
    assert not any("contrast" in name for name in alone.state_dict())
    assert torch.equal(sums_of(alone, batch, config), sums_of(both, batch, contrasting)[:2])
    keys_B = sample_keys(batch, 0, 3)
    assert torch.equal(token_counts(batch, config, keys_B), token_counts(batch, contrasting, keys_B)[:2])


def test_micro_batches_of_whole_groups_add_up_to_the_batch(contrasting: ModelConfig, batch: WindowBatch) -> None:
    torch.manual_seed(0)
    model = MaskDiffusion(contrasting, batch.schemas)
    whole = sums_of(model, batch, contrasting)
    parts = sum(sums_of(model, part, contrasting) for part in batch.split(2))
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)


def test_a_window_without_data_in_a_part_does_not_count(contrasting: ModelConfig, batch: WindowBatch) -> None:
    """Windows 2 and 3 are one group; of lidar, 3 has nothing, so 2 is compared with itself alone."""
    torch.manual_seed(0)
    model = MaskDiffusion(contrasting, batch.schemas)
    keys_B = sample_keys(batch, 0, 3)
    pair = list(batch.split(2))[1]
    drawn = draw_noise_and_masks(pair, contrasting, 0, 3)
    assert drawn.parts_B2K is not None
    lidar = batch.schemas[1]
    seen = seen_in_both(pair.valid[lidar.key], drawn.parts_B2K)
    assert not bool(seen[1])
    assert token_counts(batch, contrasting, keys_B)[2].tolist() == [6, 4 + int(seen[0])]
    assert float(sums_of(model, pair, contrasting)[2, 1]) == pytest.approx(0.0, abs=1e-4)


def test_windows_that_are_all_alike_are_found_by_chance(contrasting: ModelConfig) -> None:
    flat = WindowBatch((HSI,), torch.arange(8), {HSI.key: torch.ones(8, 25, 9)}, {HSI.key: torch.ones(8, 25) > 0}, True)
    config = replace(contrasting, contrast_group=8)
    torch.manual_seed(0)
    model = MaskDiffusion(config, [HSI])
    with torch.no_grad():
        model.encoder.positions_ND.zero_()
        terms = loss_terms(sums_of(model, flat, config), token_counts(flat, config, sample_keys(flat, 0, 3)))
    assert float(terms[2, 0]) == pytest.approx(math.log(8), abs=1e-3)


def test_an_encoder_learns_to_find_the_other_part(contrasting: ModelConfig) -> None:
    """Each window has a spectrum of its own under noise of each pixel."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(16, 1, 9, generator=generator) + torch.randn(16, 25, 9, generator=generator)
    batch = WindowBatch((HSI,), torch.arange(16), {HSI.key: values}, {HSI.key: torch.ones(16, 25) > 0}, True)
    config = replace(contrasting, contrast_group=16)
    torch.manual_seed(0)
    model = MaskDiffusion(config, [HSI])
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    found = []
    for step in range(60):
        keys_B = sample_keys(batch, 0, step)
        terms = loss_terms(model(batch, model.draw(batch, keys_B)), model.count(batch, keys_B))
        found.append(float(terms[2, 0]))
        optimiser.zero_grad()
        weighted_loss(terms, config).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert sum(found[-5:]) / 5 < 0.5 * found[0]


@pytest.mark.parametrize(("workers", "micro_batch"), [(3, 128), (1, 48)])
def test_groups_that_a_worker_would_cut_are_refused(workers: int, micro_batch: int) -> None:
    model = ModelConfig(contrast_weight=1.0, contrast_group=32)
    with pytest.raises(BadInput, match=r"model\.contrast_group: expected a divisor"):
        PretrainConfig(workers=workers, global_batch=96 if workers == 1 else 48, micro_batch=micro_batch, model=model)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"contrast_weight": -1.0}, "contrast_weight"),
        ({"contrast_weight": 1.0, "window": 1}, "contrast_weight"),
        ({"contrast_group": 1}, "contrast_group"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, float], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        ModelConfig(**settings)  # type: ignore[arg-type]
