"""Stems: from a pixel's bands to the model's width, by a layer of each modality, or by one layer for all sensors.

Shapes: B windows, K tokens, C bands, D width, F features of a band's place.
"""

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffclip_dist.data.schema import ModalitySchema

_SINUSOIDS: Final = 32  # sinusoids of the wavelength, and as many of the index
_LONGEST_NM: Final = 10_000.0
_MOST_BANDS: Final = 1_000.0


class OwnBands(nn.Linear):
    """One modality's bands through a layer of its own (DiffCLIP, stage 1)."""

    def forward(self, values_BKC: Tensor, places_CF: Tensor | None = None) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        assert places_CF is None
        return super().forward(values_BKC.to(self.weight.dtype)), None


class WavelengthBands(nn.Module):
    """Any sensor's bands through weights that depend on their wavelengths (DOFA, Xiong et al. 2024).

    A small MLP turns each band's wavelength into a column of weights and a part of the bias. The bias differs between
    sensors, and goes to the class token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(4 * _SINUSOIDS, width)
        self.output = nn.Linear(width, 2 * width)

    def forward(self, values_BKC: Tensor, places_CF: Tensor | None) -> tuple[Tensor, Tensor | None]:
        assert places_CF is not None
        made_CE = self.output(F.gelu(self.hidden(places_CF.to(self.hidden.weight.dtype))))
        weight_CD, bias_CD = made_CE.chunk(2, dim=1)
        sensor_D = bias_CD.mean(dim=0)
        # bands are standardised; this scale makes sensors with many and with few bands comparable
        scaled_BKC = values_BKC.to(weight_CD.dtype) * len(places_CF) ** -0.5
        return scaled_BKC @ weight_CD + sensor_D, sensor_D


BandEmbedding = OwnBands | WavelengthBands


class Stem(nn.Module):
    """Two 1x1 layers with a normalisation over each token."""

    def __init__(self, bands: BandEmbedding, width: int) -> None:
        super().__init__()
        self.bands = bands
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))

    def forward(self, values_BKC: Tensor, places_CF: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, K, D), and the sensor's bias (D,) if all sensors share the stem."""
        embedded_BKD, sensor_D = self.bands(values_BKC, places_CF)
        # autocast on GPUs gives norms in float32; tokens stay in the precision of the matrix products
        return self.mix(embedded_BKD).to(embedded_BKD.dtype), sensor_D


class BandPlaces(nn.Module):
    """Where a sensor's bands lie: sinusoids of the wavelength, or of the index where it is unknown; nothing learned."""

    places_CF: Tensor

    def __init__(self, schema: ModalitySchema) -> None:
        super().__init__()
        known = schema.wavelengths_nm
        values_C = torch.tensor(range(schema.bands) if known is None else known, dtype=torch.float64)
        fastest = math.pi / 2.0 if known is None else math.pi / 40.0  # bands 20 nm apart differ
        slowest = math.pi / (_MOST_BANDS if known is None else _LONGEST_NM)
        steps_S = torch.linspace(math.log(fastest), math.log(slowest), _SINUSOIDS, dtype=torch.float64)
        angles_CS = values_C[:, None] * steps_S.exp()
        sinusoid_CE = torch.cat([angles_CS.sin(), angles_CS.cos()], dim=1).to(torch.float32)
        other_CE = torch.zeros_like(sinusoid_CE)
        parts = [other_CE, sinusoid_CE] if known is None else [sinusoid_CE, other_CE]
        self.register_buffer("places_CF", torch.cat(parts, dim=1), persistent=False)

    def forward(self) -> Tensor:
        """float32 (C, F)."""
        return self.places_CF
