"""Floating-point operations of the model, counted from its shapes; a multiply and an add are two."""

from collections.abc import Sequence

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.contrast import COMPARED_WIDTH, part_size
from diffclip_dist.model.masking import slot_count
from diffclip_dist.model.model_config import ModelConfig

_FORWARD_AND_BACKWARD = 3  # the backward pass takes two products for each one of the forward pass


def training_flops(config: ModelConfig, schemas: Sequence[ModalitySchema]) -> int:
    """Matrix operations of one sample's forward and backward pass, for a window without missing tokens.

    Normalisations, activations and the optimizer are left out, as is usual for model FLOPs utilisation (PaLM,
    appendix B).
    """
    visible = slot_count(config.tokens, config.mask_ratio)
    forward = 0
    if config.reconstructs:
        forward = sum(_modality_flops(config, schema.bands, visible) for schema in schemas)
    if config.reconstructs and config.fusion == "joint":
        together, apart = len(schemas) * (visible + 1), visible + 1
        forward += config.depth * _mixing_flops(config.width, together)
        forward -= len(schemas) * config.depth * _mixing_flops(config.width, apart)
        forward += len(schemas) * 2 * config.tokens * config.width * config.width_in_decoder
    if config.contrast_weight > 0.0:
        forward += _contrast_flops(config, schemas)
    return _FORWARD_AND_BACKWARD * forward


def _contrast_flops(config: ModelConfig, schemas: Sequence[ModalitySchema]) -> int:
    """Two parts of a window, each once more through the encoder; what then compares windows is small beside it."""
    size, timestep = part_size(config), 2 * (config.timestep_width * config.width + config.width**2)
    stems = sum(2 * size * (schema.bands * config.width + config.width**2) + timestep for schema in schemas)
    projector = len(schemas) * 2 * 2 * config.width * (config.width + COMPARED_WIDTH)
    if config.fusion == "joint":
        blocks = _block_flops(config, config.width, len(schemas) * (size + 1))
    else:
        blocks = len(schemas) * _block_flops(config, config.width, size + 1)
    return 2 * (stems + config.depth * blocks + projector)


def _modality_flops(config: ModelConfig, bands: int, visible: int) -> int:
    width = config.width
    stem = 2 * visible * (bands * width + width * width)
    timestep = 2 * (config.timestep_width * width + width * width)
    encoder = config.depth * _block_flops(config, width, visible + 1)
    decoder_input = 2 * (visible + 1) * width * config.width_in_decoder
    decoder = config.decoder_depth * _block_flops(config, config.width_in_decoder, config.tokens + 1)
    head = 2 * config.tokens * config.width_in_decoder * bands
    return stem + timestep + encoder + decoder_input + decoder + head


def _block_flops(config: ModelConfig, width: int, tokens: int) -> int:
    projections = 2 * tokens * 4 * width**2
    mlp = 2 * 2 * tokens * width * int(width * config.mlp_ratio)
    return projections + _mixing_flops(width, tokens) + mlp


def _mixing_flops(width: int, tokens: int) -> int:
    return 2 * 2 * tokens**2 * width
