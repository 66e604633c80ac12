"""Mask diffusion over multimodal windows (DiffCLIP, stage 1): the model that pretraining trains.

Shapes: B windows, M modalities, N tokens of a window, K visible slots, C bands, D width, E the decoders' width;
L kinds of loss, see `LOSS_KINDS`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from diffclip_dist import randomness
from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.contrast import PartContrast, draw_parts, seen_in_both
from diffclip_dist.model.decoder import ModalityDecoder, restore_places
from diffclip_dist.model.diffusion import ForwardDiffusion
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.masking import TokenMask, draw_mask, hide_modalities, visible_counts
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.transformer import position_embedding

# each draw folds a sample's key with its own number, so that the draws are independent
_TIMESTEP, _NOISE, _MASK, _DROPOUT, _PARTS = 1, 2, 3, 4, 5
# L; a run without a contrast has the first two
LOSS_KINDS: Final = ("visible", "masked", "contrast")
# torch goes back to uncompiled code, without a word, beyond so many variants of one function; 8 by default
_MOST_VARIANTS: Final = 64


@dataclass(frozen=True)
class NoiseAndMasks:
    """The random draws of a batch.

    Attributes:
        t_B: int64 timestep, shared by a sample's modalities.
        noise: modality key to standard normal noise (B, N, C), independent per modality.
        masks: modality key to its token mask, independent per modality.
        parts_B2K: from `draw_parts`; ``None`` where parts are not compared.
    """

    t_B: Tensor
    noise: Mapping[str, Tensor]
    masks: Mapping[str, TokenMask]
    parts_B2K: Tensor | None = None


def draw_noise_and_masks(batch: WindowBatch, config: ModelConfig, seed: int, step: int) -> NoiseAndMasks:
    """Draws timesteps, noise and masks of a batch.

    They depend on the seed, the step and each sample's place in the global batch alone.

    Args:
        batch: any part of the step's global batch.
        config: the model's settings.
        seed: of the run.
        step: of the run, counted from 0.
    """
    return noise_and_masks(batch, config, sample_keys(batch, seed, step))


def sample_keys(batch: WindowBatch, seed: int, step: int) -> Tensor:
    """int64 (B,): the key of each sample's draws; what follows from it needs no other number of the run."""
    return randomness.keys(batch.positions_B, seed, step)


def noise_and_masks(batch: WindowBatch, config: ModelConfig, keys_B: Tensor) -> NoiseAndMasks:
    """Draws timesteps, noise and masks from the samples' keys."""
    hidden_BM = hidden_modalities(batch, config, keys_B)
    noise, masks = {}, {}
    for index, schema in enumerate(batch.schemas):
        own_position = randomness.fold(*schema.key.encode())
        tokens = batch.valid[schema.key].shape[1]
        noise_keys_B = randomness.keys(keys_B, _NOISE, own_position)
        noise[schema.key] = randomness.normal(noise_keys_B, tokens * schema.bands).view(-1, tokens, schema.bands)
        scores_BN = randomness.uniform(randomness.keys(keys_B, _MASK, own_position), tokens)
        masks[schema.key] = draw_mask(scores_BN, batch.valid[schema.key], config.mask_ratio, hidden_BM[:, index])
    lowest, highest = config.diffusion.lowest_timestep, config.diffusion.last_drawn
    t_B = lowest + randomness.integers(randomness.keys(keys_B, _TIMESTEP), highest - lowest + 1)
    return NoiseAndMasks(t_B, noise, masks, window_parts(config, keys_B))


def window_parts(config: ModelConfig, keys_B: Tensor) -> Tensor | None:
    """The parts of each window that are compared; one of the step's draws. ``None`` where none are."""
    if config.contrast_weight == 0.0:
        return None
    return draw_parts(randomness.uniform(randomness.keys(keys_B, _PARTS), config.tokens), config)


def hidden_modalities(batch: WindowBatch, config: ModelConfig, keys_B: Tensor) -> Tensor:
    """bool (B, M): true where a whole modality of a window is hidden from the encoder; one of the step's draws."""
    if config.modality_dropout == 0.0:
        return torch.zeros(len(keys_B), len(batch.schemas), dtype=torch.bool, device=keys_B.device)
    # the key depends on the modality's name, so the order of the modalities changes nothing
    scores = [
        randomness.uniform(randomness.keys(keys_B, _DROPOUT, randomness.fold(*schema.key.encode())), 1)
        for schema in batch.schemas
    ]
    has_data_BM = torch.stack([batch.valid[schema.key].any(dim=1) for schema in batch.schemas], dim=1)
    chance_B = randomness.uniform(randomness.keys(keys_B, _DROPOUT), 1)[:, 0]
    return hide_modalities(chance_B, torch.cat(scores, dim=1), has_data_BM, config.modality_dropout)


class MaskDiffusion(nn.Module):
    """Encoder, decoders and the loss.

    Attributes:
        autocasts: whether `forward` multiplies matrices in bfloat16 while the parameters stay float32. The tokens
            between two layers are bfloat16 then; noise, targets and loss stay float32.
    """

    decoder_positions_NE: Tensor

    def __init__(self, config: ModelConfig, modalities: Sequence[ModalitySchema]) -> None:
        super().__init__()
        self.config = config
        self.autocasts = False
        self.encoder = MultimodalEncoder(config, modalities)
        self.decoders = nn.ModuleDict(
            {schema.key: ModalityDecoder(schema.bands, config) for schema in modalities if config.reconstructs}
        )
        self.register_buffer(
            "decoder_positions_NE", position_embedding(config.window, config.width_in_decoder), persistent=False
        )
        self.diffusion = ForwardDiffusion(config.diffusion)
        self.contrast = PartContrast(config) if config.contrast_weight > 0.0 else None

    def draw(self, batch: WindowBatch, keys_B: Tensor) -> NoiseAndMasks:
        """The draws of a batch for this model, from `sample_keys`."""
        return noise_and_masks(batch, self.config, keys_B)

    def count(self, batch: WindowBatch, keys_B: Tensor) -> Tensor:
        """`token_counts` for this model."""
        return token_counts(batch, self.config, keys_B)

    def predict(
        self,
        schemas: Sequence[ModalitySchema],
        noised: Mapping[str, Tensor],
        t_B: Tensor,
        masks: Mapping[str, TokenMask],
        all_filled: bool,
    ) -> dict[str, Tensor]:
        """The decoders' predictions (B, N, C) by modality: the target at visible tokens, x_0 at masked ones.

        Args:
            schemas: the modalities.
            noised: modality key to x_t (B, N, C); masked tokens are not read.
            t_B: int64 timestep of each window.
            masks: modality key to its mask.
            all_filled: true where no mask has an empty slot, which is faster.
        """
        sequences, present = [], []
        for schema in schemas:
            mask = masks[schema.key]
            visible_BKC = gather_tokens(noised[schema.key], mask.slots_BK)
            sequences.append(self.encoder.embed(schema, visible_BKC, self.encoder.positions_ND[mask.slots_BK], t_B))
            present.append(torch.cat([mask.filled_BK.new_ones(len(t_B), 1), mask.filled_BK], dim=1))
        encoded = dict(
            zip(
                (schema.key for schema in schemas),
                self.encoder.encode(sequences, None if all_filled else present),
                strict=True,
            )
        )
        elsewhere = seen_elsewhere(encoded, masks) if self.config.fusion == "joint" else {}
        return {
            key: self.decoders[key](encoded_BSD, masks[key], self.decoder_positions_NE, elsewhere.get(key))
            for key, encoded_BSD in encoded.items()
        }

    def forward(self, batch: WindowBatch, drawn: NoiseAndMasks) -> Tensor:
        """Losses summed over tokens or windows, float32 (L, M).

        Each token counts with its squared error's mean over bands and its timestep's weight. Nothing is normalised
        yet, so that the sums of micro-batches and ranks add up.
        """
        sums = [*self._reconstruction_errors(batch, drawn)]
        if self.contrast is not None and drawn.parts_B2K is not None:
            with torch.autocast(drawn.t_B.device.type, torch.bfloat16, enabled=self.autocasts):
                projected = self.contrast.project(self.encoder, batch, drawn.parts_B2K)
            sums.append(self.contrast(projected, batch, drawn.parts_B2K))
        return torch.stack(sums)

    def _reconstruction_errors(self, batch: WindowBatch, drawn: NoiseAndMasks) -> tuple[Tensor, Tensor]:
        """Summed over visible and over masked tokens, both (M,); 0 where nothing is reconstructed."""
        if not self.config.reconstructs:
            nothing_M = torch.zeros(len(batch.schemas), device=drawn.t_B.device)
            return nothing_M, nothing_M
        noised = {
            schema.key: self.diffusion(batch.windows[schema.key], drawn.t_B, drawn.noise[schema.key])
            for schema in batch.schemas
        }
        all_filled = batch.all_valid and self.config.modality_dropout == 0.0
        with torch.autocast(drawn.t_B.device.type, torch.bfloat16, enabled=self.autocasts):
            predicted = self.predict(batch.schemas, noised, drawn.t_B, drawn.masks, all_filled)
        visible_weight_B, masked_weight_B = self.diffusion.weights(drawn.t_B)
        visible, masked = [], []
        for schema in batch.schemas:
            mask, clean_BNC = drawn.masks[schema.key], batch.windows[schema.key]
            target_BNC = self.diffusion.target(clean_BNC, drawn.t_B, drawn.noise[schema.key])
            if target_BNC is not clean_BNC:
                target_BNC = torch.where(mask.visible_BN[..., None], target_BNC, clean_BNC)
            error_BN = (predicted[schema.key].to(torch.float32) - target_BNC).square().mean(dim=2)
            visible.append((error_BN * mask.visible_BN * visible_weight_B[:, None]).sum())
            masked.append((error_BN * mask.masked_BN * masked_weight_B[:, None]).sum())
        return torch.stack(visible), torch.stack(masked)


def compile_model(model: MaskDiffusion, device: torch.device, *, cuda_graphs: bool = False) -> None:
    """Compiles forward and backward pass, and on GPUs the draws and counts, at their first calls.

    Shapes are fixed in the compiled code. Each combination of sensor, windows with or without holes, and size of
    micro-batch is compiled once.

    Args:
        model: to be compiled.
        device: where it computes.
        cuda_graphs: whether forward and backward pass are replayed as CUDA graphs. Draws and counts are not: a graph
            writes over its former results, and the counts of a step serve all of its passes.
    """
    static: dict[str, Any] = {"dynamic": False, "recompile_limit": _MOST_VARIANTS}
    model.compile(**static, mode="reduce-overhead" if cuda_graphs else None)
    # torch 2.14 compiles 64-bit integers that become float32 to wrong numbers on CPUs
    if device.type == "cuda":
        model.draw = torch.compile(model.draw, **static)  # type: ignore[method-assign]
        model.count = torch.compile(model.count, **static)  # type: ignore[method-assign]


def seen_elsewhere(encoded: Mapping[str, Tensor], masks: Mapping[str, TokenMask]) -> dict[str, Tensor]:
    """For each modality, the mean (B, N, D) of the others' encoded tokens at each place, 0 where none is seen.

    Args:
        encoded: modality key to the encoder's output (B, 1 + K, D), class token first.
        masks: modality key to where the tokens belong.
    """
    seen = {
        key: restore_places(encoded_BSD[:, 1:], masks[key], encoded_BSD.new_zeros(encoded_BSD.shape[2]))
        for key, encoded_BSD in encoded.items()
    }
    others = {key: [other for other in encoded if other != key] for key in encoded}
    nothing_BND = torch.zeros_like(next(iter(seen.values())))
    mean = {}
    for key, names in others.items():
        count_BN = sum(
            (masks[name].visible_BN.long() for name in names), torch.zeros_like(masks[key].visible_BN.long())
        )
        mean[key] = sum((seen[name] for name in names), nothing_BND) / count_BN.clamp_min(1)[..., None]
    return mean


def gather_tokens(values_BNC: Tensor, slots_BK: Tensor) -> Tensor:
    """The values (B, K, C) behind the visible slots."""
    return values_BNC.gather(1, slots_BK[..., None].expand(-1, -1, values_BNC.shape[2]))


def token_counts(batch: WindowBatch, config: ModelConfig, keys_B: Tensor) -> Tensor:
    """int64 (L, M): visible and masked tokens, and compared windows, per modality: the divisors of the loss sums.

    They depend on the valid tokens and the hidden modalities; this draws no noise and no masks.

    Args:
        batch: any part of the step's global batch.
        config: the model's settings.
        keys_B: from `sample_keys`.
    """
    valid_MB = torch.stack([batch.valid[schema.key].sum(dim=1) for schema in batch.schemas])
    visible_MB = visible_counts(valid_MB, config.mask_ratio)
    visible_MB = visible_MB.masked_fill(hidden_modalities(batch, config, keys_B).T, 0)
    counts = [visible_MB.sum(dim=1), (valid_MB - visible_MB).sum(dim=1)]
    parts_B2K = window_parts(config, keys_B)
    if parts_B2K is not None:
        counts.append(torch.stack([seen_in_both(batch.valid[one.key], parts_B2K).sum() for one in batch.schemas]))
    return torch.stack(counts)


def loss_terms(sums_LM: Tensor, counts_LM: Tensor) -> Tensor:
    """Mean losses (L, M), given the sums of any part of the global batch.

    Args:
        sums_LM: from `MaskDiffusion`.
        counts_LM: token counts of the whole global batch, so that the parts' terms add up to its terms.
    """
    return sums_LM / counts_LM.clamp_min(1).to(sums_LM.dtype)


def weighted_loss(terms_LM: Tensor, config: ModelConfig) -> Tensor:
    """Sum over modalities of L_visible + 0.1 L_masked at the published weights (DiffCLIP, stage 1, loss)."""
    visible_M, masked_M, *contrast = terms_LM.unbind()
    loss = config.visible_weight * visible_M.sum() + config.masked_weight * masked_M.sum()
    for contrast_M in contrast:
        loss = loss + config.contrast_weight * contrast_M.sum()
    return loss
