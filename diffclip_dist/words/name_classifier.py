"""Tells classes by their names, without a labelled pixel.

Shapes: P pixels, G groups of bands, b bands, M materials, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffclip_dist.words.class_name import ClassName
from diffclip_dist.words.haze import estimate_haze
from diffclip_dist.words.material_network import MaterialNetwork
from diffclip_dist.words.name_matching import NameMatch, NearCaption, match_names
from diffclip_dist.words.reflectance_scale import reflectance_divisor
from diffclip_dist.words.scene_pixels import sample_pixels
from diffclip_dist.words.spectral_bands import BandGroup, SpectralBands
from diffclip_dist.words.spectral_library import Reals, read_library
from diffclip_dist.words.words_config import WordsConfig
from shards.archive.archive import ReadableScene

DEFAULTS = WordsConfig()
# a probability below this is told as this, so that logarithms are finite
LEAST_PROBABILITY = 1e-6


class NameClassifier(nn.Module):
    """Class name -> materials -> spectra at the scene's wavelengths -> P(class | pixel).

    Attributes:
        config: how it was made.
        bands: the bands that it reads.
        matches: what each class name was taken for, in the order of the classes.
        network: tells materials by spectra.
        divisor_G: values divided by it are reflectance.
        haze_G: reflectance that the scene's air adds.
        materials_CM: weights of the materials in each class.
        log_share_C: logarithm of each class's share in the scene, as far as it is corrected for.
    """

    def __init__(self, bands: SpectralBands, matches: Sequence[NameMatch], config: WordsConfig) -> None:
        super().__init__()
        self.config, self.bands, self.matches = config, bands, tuple(matches)
        self.network = MaterialNetwork(bands, config)
        groups, materials = len(bands.groups), self.network.biases[2].shape[-1]
        self.divisor_G: Tensor
        self.haze_G: Tensor
        self.materials_CM: Tensor
        self.log_share_C: Tensor
        self.register_buffer("divisor_G", torch.ones(groups))
        self.register_buffer("haze_G", torch.zeros(groups))
        self.register_buffer("materials_CM", torch.zeros(len(self.matches), materials))
        self.register_buffer("log_share_C", torch.zeros(len(self.matches)))

    @classmethod
    def fit(
        cls, scene: ReadableScene, classes: Sequence[ClassName], config: WordsConfig = DEFAULTS
    ) -> "NameClassifier":
        """Trains for the bands of a scene, from the library's spectra alone; no label is read.

        Raises:
            WordsUnavailable: the scene has no wavelengths or no reflectance, or a package is missing.
        """
        bands = SpectralBands.of(scene.record.modalities)
        pixels = sample_pixels(scene, bands.modalities)
        matches, materials_CM = match_names(classes, config)
        classifier = cls(bands, matches, config)
        classifier.materials_CM.copy_(materials_CM)
        classifier._set_divisor(pixels)
        classifier.network = MaterialNetwork.train_on(read_library(), bands, config)
        classifier._look_at(pixels)
        return classifier

    def for_scene(self, scene: ReadableScene) -> "NameClassifier":
        """The same names and spectra, with haze and class shares of another scene of the same bands."""
        other = self._copy(self.matches, self.materials_CM)
        other._look_at(sample_pixels(scene, self.modalities))
        return other

    def with_classes(self, classes: Sequence[ClassName]) -> "NameClassifier":
        """Other names over the same materials. Class shares are then not corrected; `for_scene` estimates them."""
        return self._copy(*match_names(classes, self.config))

    def _copy(self, matches: Sequence[NameMatch], materials_CM: Tensor) -> "NameClassifier":
        other = NameClassifier(self.bands, matches, self.config)
        other.network.load_state_dict(self.network.state_dict())
        other.divisor_G.copy_(self.divisor_G)
        other.haze_G.copy_(self.haze_G)
        other.materials_CM.copy_(materials_CM)
        return other

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that it reads."""
        return self.bands.modalities

    def log_probabilities(self, values: Mapping[str, Tensor]) -> Tensor:
        """log P(class | pixel), (P, C), finite; the same for all classes where a pixel has no data.

        Args:
            values: modality to float (P, b) in the scene's own values; NaN where missing.
        """
        return self._log_probabilities(self._reflectance(values), self.log_share_C)

    @torch.no_grad()
    def _log_probabilities(self, reflectance_PG: Tensor, log_share_C: Tensor) -> Tensor:
        materials_PM: Tensor = self.network(reflectance_PG - self.haze_G)
        scores_PC = (materials_PM @ self.materials_CM.T).clamp_min(LEAST_PROBABILITY).log() - log_share_C
        known_C = torch.tensor([match.known for match in self.matches])
        if not known_C.any():
            scores_PC = torch.zeros_like(scores_PC)
        else:
            # an unknown name is as likely as the known ones are on average
            scores_PC[:, ~known_C] = scores_PC[:, known_C].mean(dim=1, keepdim=True)
        scores_PC[reflectance_PG.isnan().all(dim=1)] = 0.0
        logs_PC: Tensor = scores_PC.log_softmax(dim=1)
        return logs_PC

    def _reflectance(self, values: Mapping[str, Tensor]) -> Tensor:
        gathered_PG = self.bands.gathered({name: values[name].double().numpy() for name in self.modalities})
        return torch.from_numpy(gathered_PG).float() / self.divisor_G

    def _set_divisor(self, pixels: Mapping[str, Reals]) -> None:
        gathered_PG, centres_nm = self.bands.gathered(pixels), self.bands.centres_nm
        for name in self.modalities:
            own = np.array([group.modality == name for group in self.bands.groups])
            divisor = reflectance_divisor(gathered_PG[:, own], centres_nm[own], name)
            self.divisor_G[torch.from_numpy(own)] = divisor

    def _look_at(self, pixels: Mapping[str, Reals]) -> None:
        """Estimates haze and class shares from pixels that stand for the scene."""
        reflectance_PG = torch.from_numpy(self.bands.gathered(pixels)).float() / self.divisor_G
        haze = estimate_haze(reflectance_PG.double().numpy(), self.bands.centres_nm)
        self.haze_G.copy_(torch.from_numpy(haze))
        shares_C = self._log_probabilities(reflectance_PG, torch.zeros_like(self.log_share_C)).exp().mean(dim=0)
        self.log_share_C.copy_(self.config.share_correction * shares_C.log())

    def settings(self) -> dict[str, Any]:
        """Everything but the tensors, as JSON values; see `from_settings`."""
        return {
            "config": asdict(self.config),
            "groups": [asdict(group) for group in self.bands.groups],
            "matches": [asdict(match) for match in self.matches],
        }

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "NameClassifier":
        """A classifier as `settings` describes it; `load_state_dict` gives it its tensors."""
        groups = tuple(
            BandGroup(one["modality"], *(tuple(one[key]) for key in ("bands", "centres_nm", "widths_nm")))
            for one in settings["groups"]
        )
        matches = tuple(
            NameMatch(one["name"], tuple(NearCaption(**near) for near in one["nearest"]), one["known"])
            for one in settings["matches"]
        )
        return cls(SpectralBands(groups), matches, WordsConfig(**settings["config"]))
