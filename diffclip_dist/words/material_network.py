"""A small network that tells materials by their spectra at a scene's bands, trained on drawn spectra.

Shapes: n draws, P pixels, w wavelengths of the library's grid, G groups of bands, M materials, H hidden units.
"""

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from diffclip_dist.feature_extraction.one_thread import one_thread
from diffclip_dist.randomness import fold
from diffclip_dist.words.material_spectra import draw_material
from diffclip_dist.words.materials import MATERIALS
from diffclip_dist.words.spectral_bands import SpectralBands
from diffclip_dist.words.spectral_library import LibrarySpectra
from diffclip_dist.words.words_config import WordsConfig

# added to reflectance before the logarithm, so that noise in the dark stays small
DARK: Final = 0.01
# what a drawn pixel is changed by, standard deviations: brightness and tilt in logarithms, the rest in reflectance
BRIGHTNESS: Final = 0.25
TILT: Final = 0.12
GAIN: Final = 0.03
HAZE_LEFT: Final = 0.008
OFFSET: Final = 0.004
NOISE: Final = 0.004


class MaterialNetwork(nn.Module):
    """P(material | spectrum) from several small networks.

    Attributes:
        modality_of_G: which modality each group belongs to.
    """

    def __init__(self, bands: SpectralBands, config: WordsConfig) -> None:
        super().__init__()
        groups, count, width = len(bands.groups), config.networks, config.width
        names = bands.modalities
        self.modality_of_G: Tensor
        self.centre_G: Tensor
        self.spread_G: Tensor
        self.register_buffer(
            "modality_of_G", torch.tensor([names.index(group.modality) for group in bands.groups]), persistent=False
        )
        self.register_buffer("centre_G", torch.zeros(groups))
        self.register_buffer("spread_G", torch.ones(groups))
        inputs = groups + len(names)
        sizes = ((inputs, width), (width, width), (width, len(MATERIALS)))
        self.weights = nn.ParameterList([nn.Parameter(torch.zeros(count, *size)) for size in sizes])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(count, 1, size[1])) for size in sizes])
        self.requires_grad_(False)

    def forward(self, reflectance_PG: Tensor) -> Tensor:
        """P(material | pixel), (P, M), mean over the networks; NaN groups count as missing."""
        inputs = self._inputs(reflectance_PG).expand(len(self.weights[0]), -1, -1)
        materials_PM: Tensor = self._logits(inputs).softmax(dim=-1).mean(dim=0)
        return materials_PM

    def _inputs(self, reflectance_PG: Tensor) -> Tensor:
        held_PG = ~reflectance_PG.isnan()
        logs_PG = (reflectance_PG.nan_to_num().clamp_min(0) + DARK).log()
        features_PG = torch.where(held_PG, (logs_PG - self.centre_G) / self.spread_G, 0.0)
        modalities = int(self.modality_of_G.max()) + 1
        held = [held_PG[:, self.modality_of_G == one].any(dim=1) for one in range(modalities)]
        return torch.cat([features_PG, torch.stack(held, dim=1).float()], dim=1)

    def _logits(self, inputs: Tensor) -> Tensor:
        """Inputs and logits have a network axis first."""
        hidden = gelu(inputs @ self.weights[0] + self.biases[0])
        hidden = gelu(hidden @ self.weights[1] + self.biases[1])
        logits: Tensor = hidden @ self.weights[2] + self.biases[2]
        return logits

    @classmethod
    def train_on(cls, library: LibrarySpectra, bands: SpectralBands, config: WordsConfig) -> "MaterialNetwork":
        """Trains on draws of every material; takes some seconds on one core."""
        network = cls(bands, config)
        spectra_nMG = torch.stack(
            [
                torch.from_numpy(draws @ bands.response).float()
                for draws in (
                    draw_material(material, library, config.draws, np.random.default_rng(fold(config.seed, 1, place)))
                    for place, material in enumerate(MATERIALS)
                )
            ],
            dim=1,
        )
        logs = (spectra_nMG.flatten(0, 1) + DARK).log()
        network.centre_G.copy_(logs.mean(dim=0))
        network.spread_G.copy_(logs.std(dim=0).clamp_min(0.1))
        with one_thread(), torch.enable_grad():
            network._train(spectra_nMG, bands, config)
        return network

    def _train(self, spectra_nMG: Tensor, bands: SpectralBands, config: WordsConfig) -> None:
        generator = torch.Generator().manual_seed(fold(config.seed, 2) % 2**63)
        for weight in self.weights:
            weight.copy_(torch.randn(weight.shape, generator=generator) * (2.0 / weight.shape[1]) ** 0.5)
        self.requires_grad_(True)
        parameters = list(self.parameters())
        optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=config.steps)
        draw = _PixelDraw(spectra_nMG, bands, config, generator)
        for _ in range(config.steps):
            inputs, materials = [], []
            for _ in range(config.networks):
                reflectance, material = draw()
                inputs.append(self._inputs(reflectance))
                materials.append(material)
            logits = self._logits(torch.stack(inputs))
            loss = cross_entropy(logits.flatten(0, 1), torch.cat(materials), label_smoothing=0.02)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
        self.requires_grad_(False)


class _PixelDraw:
    """Draws batches of pixels: a material mixed with another, in another light, through some haze, with noise."""

    def __init__(
        self, spectra_nMG: Tensor, bands: SpectralBands, config: WordsConfig, generator: torch.Generator
    ) -> None:
        self._spectra_nMG, self._config, self._generator = spectra_nMG, config, generator
        self._nm_G = torch.from_numpy(bands.centres_nm).float()
        self._axis_G = (self._nm_G - 1000.0) / 1000.0
        names = bands.modalities
        self._modality_of_G = torch.tensor([names.index(group.modality) for group in bands.groups])
        self._modalities = len(names)

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Reflectance (batch, G), NaN where a modality is left out, and the material of each pixel."""
        size, groups = self._config.batch, self._spectra_nMG.shape[2]
        material, other = (self._integers(self._spectra_nMG.shape[1]) for _ in range(2))
        place, other_place = (self._integers(self._spectra_nMG.shape[0]) for _ in range(2))
        share = (1.0 - self._config.least_spectra_purity) * self._uniform(size, 1)
        # half of the pixels are pure
        share = share * (self._uniform(size, 1) < 0.5)
        pixels = (1 - share) * self._spectra_nMG[place, material] + share * self._spectra_nMG[other_place, other]
        light = BRIGHTNESS * self._normal(size, 1) + TILT * self._normal(size, 1) * self._axis_G
        pixels = pixels * (light + GAIN * self._normal(size, groups)).exp()
        exponent = 1.0 + 3.0 * self._uniform(size, 1)
        pixels = pixels + HAZE_LEFT * self._normal(size, 1) * (self._nm_G / 550.0) ** -exponent
        pixels = pixels + OFFSET * self._normal(size, 1) + NOISE * self._normal(size, groups)
        if self._modalities > 1:
            # one pixel in five lacks one modality
            lacks = self._uniform(size, 1) < 0.2
            which = self._integers(self._modalities)
            pixels = pixels.masked_fill(lacks & (self._modality_of_G == which[:, None]), torch.nan)
        return pixels, material

    def _integers(self, high: int) -> Tensor:
        return torch.randint(high, (self._config.batch,), generator=self._generator)

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._generator)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator)
