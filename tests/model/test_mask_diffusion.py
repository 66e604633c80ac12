"""What the encoder sees, what the decoders are asked for, and the loss between."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffclip_dist.model.config import ModelConfig
from diffclip_dist.model.decoder import restore_places
from diffclip_dist.model.flops import training_flops
from diffclip_dist.model.mask_diffusion import MaskDiffusion, draw, loss_terms, token_counts, weighted_loss
from diffclip_dist.stream.batches import WindowBatch
from diffclip_dist.stream.schema import ModalitySchema


def test_a_full_window_shows_36_of_121_tokens() -> None:
    valid = {"hsi-1": torch.ones(3, 121, dtype=torch.bool)}
    schema = ModalitySchema("hsi", 1)
    batch = WindowBatch((schema,), torch.arange(3), {"hsi-1": torch.zeros(3, 121, 1)}, valid, dense=True)
    mask = draw(batch, ModelConfig(), seed=0, step=0).masks["hsi-1"]
    assert mask.visible_BN.sum(dim=1).tolist() == [36, 36, 36]
    assert mask.masked_BN.sum(dim=1).tolist() == [85, 85, 85]


def test_masks_split_the_valid_tokens_in_each_modality_independently(config: ModelConfig, batch: WindowBatch) -> None:
    masks = draw(batch, config, seed=3, step=8).masks
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
    draws = draw(batch, config, seed=3, step=8)
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for schema in batch.schemas:

        def record(_: object, inputs: tuple[torch.Tensor, ...], key: str = schema.key) -> None:
            seen[key] = inputs[0], inputs[1]

        model.encoder.inputs[schema.key].register_forward_pre_hook(record)
    model(batch, draws)
    for schema in batch.schemas:
        mask = draws.masks[schema.key]
        noised = model.diffusion(batch.windows[schema.key], draws.t_B, draws.noise[schema.key])
        values, positions = seen[schema.key]
        for row in range(len(values)):
            filled = mask.filled_BK[row]
            assert torch.equal(values[row][filled], noised[row][mask.visible_BN[row]])
            assert torch.equal(positions[row][filled], model.encoder.positions_ND[mask.visible_BN[row]])


def test_decoder_puts_every_visible_token_back_where_it_was(config: ModelConfig, batch: WindowBatch) -> None:
    filler = torch.full((3,), -7.0)
    for schema in batch.schemas:
        mask = draw(batch, config, seed=3, step=8).masks[schema.key]
        places = torch.arange(config.tokens, dtype=torch.float32)[None, :, None].expand(6, -1, 3)
        slots = places.gather(1, mask.slots_BK[..., None].expand(-1, -1, 3))
        restored = restore_places(slots, mask, filler)
        assert torch.equal(restored, torch.where(mask.visible_BN[..., None], places, filler))


def test_loss_is_the_hand_calculation(model: MaskDiffusion, config: ModelConfig, batch: WindowBatch) -> None:
    draws = draw(batch, config, seed=0, step=0)
    counts = token_counts(batch, config)
    loss = weighted_loss(loss_terms(model(batch, draws), counts), config)
    predicted = model.predict(batch, draws)
    expected = 0.0
    for schema in batch.schemas:
        for tokens, weight in ((draws.masks[schema.key].visible_BN, 1.0), (draws.masks[schema.key].masked_BN, 0.1)):
            errors = (predicted[schema.key] - batch.windows[schema.key])[tokens]
            expected += weight * errors.square().mean().item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_missing_pixels_change_nothing(model: MaskDiffusion, config: ModelConfig, batch: WindowBatch) -> None:
    draws = draw(batch, config, seed=0, step=0)
    lidar = batch.schemas[1].key
    spoiled = batch.windows[lidar].clone()
    spoiled[~batch.valid[lidar]] = 1e6
    other = replace(batch, windows={**batch.windows, lidar: spoiled})
    assert torch.equal(model(batch, draws), model(other, draws))


def test_micro_batches_add_up_to_the_batch(model: MaskDiffusion, config: ModelConfig, batch: WindowBatch) -> None:
    whole = model(batch, draw(batch, config, seed=2, step=5))
    parts = sum(model(part, draw(part, config, seed=2, step=5)) for part in batch.split(4))
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)


def test_order_of_modalities_does_not_matter(model: MaskDiffusion, config: ModelConfig, batch: WindowBatch) -> None:
    turned = replace(batch, schemas=batch.schemas[::-1])
    here, there = draw(batch, config, seed=2, step=5), draw(turned, config, seed=2, step=5)
    torch.testing.assert_close(model(turned, there).flip(1), model(batch, here))


def test_every_parameter_receives_a_gradient(model: MaskDiffusion, config: ModelConfig, batch: WindowBatch) -> None:
    terms = loss_terms(model(batch, draw(batch, config, seed=0, step=0)), token_counts(batch, config))
    weighted_loss(terms, config).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert silent == []


def test_a_batch_of_one_trains(model: MaskDiffusion, config: ModelConfig, batch: WindowBatch) -> None:
    one = next(batch.split(1))
    loss = weighted_loss(loss_terms(model(one, draw(one, config, 0, 0)), token_counts(one, config)), config)
    loss.backward()
    assert torch.isfinite(loss)


def test_dense_batches_take_the_short_way_to_the_same_loss(
    model: MaskDiffusion, config: ModelConfig, dense_batch: WindowBatch
) -> None:
    draws = draw(dense_batch, config, seed=0, step=0)
    torch.testing.assert_close(model(dense_batch, draws), model(replace(dense_batch, dense=False), draws))


def test_counted_flops_are_those_that_torch_counts(
    model: MaskDiffusion, config: ModelConfig, dense_batch: WindowBatch
) -> None:
    draws = draw(dense_batch, config, seed=0, step=0)
    # torch counts attention where it is written out as two products
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(dense_batch, draws)
    forward = training_flops(config, dense_batch.schemas) / 3 * len(dense_batch.positions_B)
    assert counter.get_total_flops() == pytest.approx(forward, rel=0.02)
