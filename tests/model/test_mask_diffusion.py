"""What the encoder sees, what the decoders are asked for, and the loss between."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.decoder import restore_places
from diffclip_dist.model.diffusion import cumulative_signal
from diffclip_dist.model.diffusion_config import DiffusionConfig
from diffclip_dist.model.flops import training_flops
from diffclip_dist.model.mask_diffusion import (
    MaskDiffusion,
    draw_noise_and_masks,
    loss_terms,
    sample_keys,
    token_counts,
    weighted_loss,
)
from diffclip_dist.model.masking import draw_mask
from diffclip_dist.model.model_config import Fusion, ModelConfig


def test_a_full_window_shows_36_of_121_tokens() -> None:
    valid = {"hsi-1": torch.ones(3, 121, dtype=torch.bool)}
    schema = ModalitySchema("hsi", 1)
    batch = WindowBatch((schema,), torch.arange(3), {"hsi-1": torch.zeros(3, 121, 1)}, valid, all_valid=True)
    mask = draw_noise_and_masks(batch, ModelConfig(), seed=0, step=0).masks["hsi-1"]
    assert mask.visible_BN.sum(dim=1).tolist() == [36, 36, 36]
    assert mask.masked_BN.sum(dim=1).tolist() == [85, 85, 85]


def test_masks_split_the_valid_tokens_in_each_modality_independently(config: ModelConfig, batch: WindowBatch) -> None:
    masks = draw_noise_and_masks(batch, config, seed=3, step=8).masks
    for schema in batch.schemas:
        mask, valid = masks[schema.key], batch.valid[schema.key]
        assert torch.equal(mask.visible_BN | mask.masked_BN, valid)
        assert not bool((mask.visible_BN & mask.masked_BN).any())
        for row in range(len(valid)):
            slots = mask.slots_BK[row][mask.filled_BK[row]]
            assert sorted(slots.tolist()) == mask.visible_BN[row].nonzero()[:, 0].tolist()
    hsi, lidar = (masks[schema.key].visible_BN for schema in batch.schemas)
    assert not torch.equal(hsi[[0, 1, 4, 5]], lidar[[0, 1, 4, 5]])


def test_encoder_input_is_the_noised_visible_pixels_at_their_places(
    model: MaskDiffusion, config: ModelConfig, batch: WindowBatch
) -> None:
    drawn = draw_noise_and_masks(batch, config, seed=3, step=8)
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for schema in batch.schemas:

        def record(_: object, inputs: tuple[torch.Tensor, ...], key: str = schema.key) -> None:
            seen[key] = inputs[0], inputs[1]

        model.encoder.inputs[schema.key].register_forward_pre_hook(record)
    model(batch, drawn)
    for schema in batch.schemas:
        mask = drawn.masks[schema.key]
        noised = model.diffusion(batch.windows[schema.key], drawn.t_B, drawn.noise[schema.key])
        values, positions = seen[schema.key]
        for row in range(len(values)):
            filled = mask.filled_BK[row]
            assert torch.equal(values[row][filled], noised[row][mask.visible_BN[row]])
            assert torch.equal(positions[row][filled], model.encoder.positions_ND[mask.visible_BN[row]])


def test_decoder_puts_every_visible_token_back_where_it_was(config: ModelConfig, batch: WindowBatch) -> None:
    filler = torch.full((3,), -7.0)
    for schema in batch.schemas:
        mask = draw_noise_and_masks(batch, config, seed=3, step=8).masks[schema.key]
        places = torch.arange(config.tokens, dtype=torch.float32)[None, :, None].expand(6, -1, 3)
        slots = places.gather(1, mask.slots_BK[..., None].expand(-1, -1, 3))
        restored = restore_places(slots, mask, filler)
        assert torch.equal(restored, torch.where(mask.visible_BN[..., None], places, filler))


def test_loss_is_the_hand_calculation(model: MaskDiffusion, config: ModelConfig, batch: WindowBatch) -> None:
    drawn = draw_noise_and_masks(batch, config, seed=0, step=0)
    counts = token_counts(batch, config, sample_keys(batch, 0, 0))
    loss = weighted_loss(loss_terms(model(batch, drawn), counts), config)
    noised = {key: model.diffusion(x, drawn.t_B, drawn.noise[key]) for key, x in batch.windows.items()}
    predicted = model.predict(batch.schemas, noised, drawn.t_B, drawn.masks, all_filled=False)
    expected = 0.0
    for schema in batch.schemas:
        for tokens, weight in ((drawn.masks[schema.key].visible_BN, 1.0), (drawn.masks[schema.key].masked_BN, 0.1)):
            errors = (predicted[schema.key] - batch.windows[schema.key])[tokens]
            expected += weight * errors.square().mean().item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_missing_pixels_change_nothing(model: MaskDiffusion, config: ModelConfig, batch: WindowBatch) -> None:
    drawn = draw_noise_and_masks(batch, config, seed=0, step=0)
    lidar = batch.schemas[1].key
    spoiled = batch.windows[lidar].clone()
    spoiled[~batch.valid[lidar]] = 1e6
    other = replace(batch, windows={**batch.windows, lidar: spoiled})
    assert torch.equal(model(batch, drawn), model(other, drawn))


def test_micro_batches_add_up_to_the_batch(model: MaskDiffusion, config: ModelConfig, batch: WindowBatch) -> None:
    whole = model(batch, draw_noise_and_masks(batch, config, seed=2, step=5))
    parts = sum(model(part, draw_noise_and_masks(part, config, seed=2, step=5)) for part in batch.split(4))
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)


def test_order_of_modalities_does_not_matter(
    variant_model: MaskDiffusion, variant: ModelConfig, batch: WindowBatch
) -> None:
    turned = replace(batch, schemas=batch.schemas[::-1])
    here, there = (
        draw_noise_and_masks(batch, variant, seed=2, step=5),
        draw_noise_and_masks(turned, variant, seed=2, step=5),
    )
    torch.testing.assert_close(variant_model(turned, there).flip(1), variant_model(batch, here), rtol=1e-4, atol=1e-4)


def test_counts_are_those_of_the_masks_whatever_modality_is_hidden(config: ModelConfig, batch: WindowBatch) -> None:
    dropping = replace(config, modality_dropout=0.6)
    hidden_somewhere = 0
    for step in range(8):
        masks = draw_noise_and_masks(batch, dropping, seed=1, step=step).masks
        counts = token_counts(batch, dropping, sample_keys(batch, 1, step))
        for index, schema in enumerate(batch.schemas):
            mask = masks[schema.key]
            assert torch.equal(mask.visible_BN | mask.masked_BN, batch.valid[schema.key])
            assert counts[:, index].tolist() == [int(mask.visible_BN.sum()), int(mask.masked_BN.sum())]
            assert torch.equal(mask.filled_BK.sum(dim=1), mask.visible_BN.sum(dim=1))
        blind = torch.stack([~mask.visible_BN.any(dim=1) for mask in masks.values()])
        assert not bool(blind.all(dim=0).any())
        assert blind[:, 3].tolist() == [False, True]  # the window without lidar keeps its only modality
        hidden_somewhere += int(blind.sum()) - 1
    assert 8 * 5 * 0.3 < hidden_somewhere < 8 * 5 * 0.9


def test_a_hidden_modality_is_predicted_from_the_others_where_they_are_joined(
    config: ModelConfig, full_batch: WindowBatch
) -> None:
    hsi, lidar = (schema.key for schema in full_batch.schemas)
    for fusion, reaches in (("joint", True), ("separate", False)):
        torch.manual_seed(0)
        chosen = replace(config, fusion=fusion)
        model = MaskDiffusion(chosen, full_batch.schemas)
        masks = dict(draw_noise_and_masks(full_batch, chosen, seed=0, step=0).masks)
        hidden_B = torch.ones(4, dtype=torch.bool)
        masks[lidar] = draw_mask(torch.rand(4, config.tokens), full_batch.valid[lidar], 0.7, hidden_B)
        t_B = torch.zeros(4, dtype=torch.int64)
        changed = {**full_batch.windows, hsi: -full_batch.windows[hsi]}
        before, after = (
            model.predict(full_batch.schemas, windows, t_B, masks, all_filled=False)[lidar]
            for windows in (full_batch.windows, changed)
        )
        assert bool((before - after).abs().max() > 1e-4) == reaches


VARIANTS = [
    {},
    {"fusion": "joint", "modality_dropout": 0.9},
    {"stem": "wavelength", "modality_dropout": 0.9},
    {"fusion": "joint", "stem": "wavelength", "diffusion": DiffusionConfig(target="v", weighting="min_snr")},
    {"decoder_width": 8, "fusion": "joint", "diffusion": DiffusionConfig(target="eps", schedule="cosine")},
]


@pytest.fixture(params=VARIANTS, ids=str)
def variant(request: pytest.FixtureRequest, config: ModelConfig) -> ModelConfig:
    return replace(config, **request.param)


@pytest.fixture
def variant_model(variant: ModelConfig, batch: WindowBatch) -> MaskDiffusion:
    torch.manual_seed(0)
    return MaskDiffusion(variant, batch.schemas)


def test_every_parameter_receives_a_gradient(
    variant_model: MaskDiffusion, variant: ModelConfig, batch: WindowBatch
) -> None:
    sums = variant_model(batch, draw_noise_and_masks(batch, variant, seed=0, step=0))
    weighted_loss(loss_terms(sums, token_counts(batch, variant, sample_keys(batch, 0, 0))), variant).backward()
    model = variant_model
    silent = [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert silent == []


def test_a_batch_of_one_trains(model: MaskDiffusion, config: ModelConfig, batch: WindowBatch) -> None:
    one = next(batch.split(1))
    loss = weighted_loss(
        loss_terms(
            model(one, draw_noise_and_masks(one, config, 0, 0)), token_counts(one, config, sample_keys(one, 0, 0))
        ),
        config,
    )
    loss.backward()
    assert torch.isfinite(loss)


def test_dense_batches_take_the_short_way_to_the_same_loss(
    model: MaskDiffusion, config: ModelConfig, full_batch: WindowBatch
) -> None:
    drawn = draw_noise_and_masks(full_batch, config, seed=0, step=0)
    torch.testing.assert_close(model(full_batch, drawn), model(replace(full_batch, all_valid=False), drawn))


@pytest.mark.parametrize("contrast_weight", [0.0, 1.0])
@pytest.mark.parametrize("fusion", ["separate", "joint"])
def test_counted_flops_are_those_that_torch_counts(
    config: ModelConfig, full_batch: WindowBatch, fusion: Fusion, contrast_weight: float
) -> None:
    config = replace(config, fusion=fusion, contrast_weight=contrast_weight, contrast_group=2)
    model = MaskDiffusion(config, full_batch.schemas)
    drawn = draw_noise_and_masks(full_batch, config, seed=0, step=0)
    # torch counts attention where it is written out as two products
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(full_batch, drawn)
    forward = training_flops(config, full_batch.schemas) / 3 * len(full_batch.positions_B)
    assert counter.get_total_flops() == pytest.approx(forward, rel=0.02)


def test_min_snr_weighs_each_windows_error_by_its_timestep(config: ModelConfig, full_batch: WindowBatch) -> None:
    weighted = replace(config, diffusion=DiffusionConfig(weighting="min_snr", target="v"))
    torch.manual_seed(0)
    model = MaskDiffusion(weighted, full_batch.schemas)
    drawn = draw_noise_and_masks(full_batch, weighted, seed=0, step=0)
    noised = {key: model.diffusion(x, drawn.t_B, drawn.noise[key]) for key, x in full_batch.windows.items()}
    predicted = model.predict(full_batch.schemas, noised, drawn.t_B, drawn.masks, all_filled=True)
    abar = cumulative_signal(weighted.diffusion)
    expected = torch.zeros(2, 2, dtype=torch.float64)
    for row, t in enumerate(drawn.t_B.tolist()):
        signal, noise = abar[t].item() ** 0.5, (1.0 - abar[t].item()) ** 0.5
        capped = min((signal / noise) ** 2, 5.0)
        for index, key in enumerate(full_batch.windows):
            clean, mask = full_batch.windows[key][row].double(), drawn.masks[key]
            v = signal * drawn.noise[key][row] - noise * clean
            for kind, (tokens, target, weight) in enumerate(
                (
                    (mask.visible_BN[row], v, capped / ((signal / noise) ** 2 + 1.0)),
                    (mask.masked_BN[row], clean, capped),
                )
            ):
                error = (predicted[key][row] - target)[tokens].square().mean(dim=1).sum()
                expected[kind, index] += weight * error.item()
    torch.testing.assert_close(model(full_batch, drawn).double(), expected, rtol=1e-4, atol=1e-5)
