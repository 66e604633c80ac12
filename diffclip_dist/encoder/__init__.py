"""The pretrained, modality-shared encoder, by itself."""

from diffclip_dist.encoder.storage import (
    EncoderConfig,
    Training,
    load_encoder,
    new_encoder,
    read_config,
    save_encoder,
)

__all__ = ["EncoderConfig", "Training", "load_encoder", "new_encoder", "read_config", "save_encoder"]
