"""Models by name: the published model, one that learns by contrast alone, and sizes up to a billion parameters.

The larger encoders follow the vision transformers (Dosovitskiy et al. 2021): heads of width 64 and
an MLP of four times the width. Their decoders are narrow, as in masked autoencoders (He et al. 2022): a decoder sees
every token of the window, and at the encoder's width it would cost more than the encoder.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import pydantic

from diffclip_dist.model.model_config import ModelConfig

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        # DiffCLIP, stage 1
        "published": {
            "window": 11, "width": 128, "depth": 4, "heads": 8, "mlp_ratio": 2.0, "decoder_width": None,
            "decoder_depth": 3, "mask_ratio": 0.7, "visible_weight": 1.0, "masked_weight": 0.1,
            "diffusion": {"highest_timestep": None},
        },
        # the default's sizes, for scenes of any sensors
        "contrast": {
            "stem": "wavelength", "visible_weight": 0.0, "masked_weight": 0.0, "contrast_weight": 1.0,
        },
        # about 86 M parameters in the encoder
        "base": {
            "width": 768, "depth": 12, "heads": 12, "mlp_ratio": 4.0, "decoder_width": 192, "decoder_depth": 3,
        },
        # about 300 M
        "large": {
            "width": 1024, "depth": 24, "heads": 16, "mlp_ratio": 4.0, "decoder_width": 256, "decoder_depth": 3,
        },
        # over 1 B
        "huge": {
            "width": 1536, "depth": 36, "heads": 24, "mlp_ratio": 4.0, "decoder_width": 384, "decoder_depth": 3,
        },
    }
)  # fmt: skip


def preset_model(name: str) -> ModelConfig:
    """The model settings under a name of `PRESETS`."""
    return pydantic.TypeAdapter(ModelConfig).validate_python(dict(PRESETS[name]))


PUBLISHED: Final = preset_model("published")
