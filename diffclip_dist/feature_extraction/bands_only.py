"""What stands in for an encoder where pixels are known by their bands alone.

Shapes: B windows, M modalities, N tokens of a window, T wanted ones of these.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.encoder import MultimodalEncoder, WindowFeatures


class BandsOnly(nn.Module):
    """Gives each modality features of width 0, from windows of one pixel."""

    nothing_M0: Tensor

    def __init__(self, modalities: Sequence[ModalitySchema]) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.register_buffer("nothing_M0", torch.zeros(len(self.modalities), 0), persistent=False)

    def forward(
        self, windows: Mapping[str, Tensor], valid: Mapping[str, Tensor], wanted_T: Tensor | None = None
    ) -> WindowFeatures:
        """Features of width 0; of the windows, only their number and validity count."""
        del windows
        given_BN = next(iter(valid.values()))
        valid_BMN = torch.stack([valid.get(one.name, torch.zeros_like(given_BN)) for one in self.modalities], dim=1)
        batch, modalities, tokens = valid_BMN.shape
        nothing_BM0 = self.nothing_M0.expand(batch, -1, -1)
        wanted = tokens if wanted_T is None else len(wanted_T)
        return WindowFeatures(nothing_BM0, nothing_BM0[:, :, None].expand(batch, modalities, wanted, 0), valid_BMN)


FeatureEncoder = MultimodalEncoder | BandsOnly


def window_side(encoder: FeatureEncoder) -> int:
    """Side in pixels of the windows that it reads."""
    return encoder.config.window if isinstance(encoder, MultimodalEncoder) else 1


def best_device() -> str:
    """The GPU where this process has one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_of(encoder: FeatureEncoder) -> torch.device:
    """Where it computes."""
    return next(encoder.buffers()).device
