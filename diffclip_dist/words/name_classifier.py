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
from diffclip_dist.words.heights import HeightSplit, find_split
from diffclip_dist.words.material_network import MaterialNetwork
from diffclip_dist.words.materials import MATERIALS
from diffclip_dist.words.name_matching import NameMatch, NearCaption, match_names
from diffclip_dist.words.reflectance_scale import reflectance_scale
from diffclip_dist.words.scene_pixels import ScenePixels, sample_pixels
from diffclip_dist.words.spectral_bands import BandGroup, SpectralBands
from diffclip_dist.words.spectral_library import read_library
from diffclip_dist.words.text_vectors import WORDS, is_text_source
from diffclip_dist.words.words_config import WordsConfig
from shards.archive.archive import ReadableScene

DEFAULTS = WordsConfig()
# a probability below this is told as this, so that logarithms are finite
LEAST_PROBABILITY = 1e-6
# how far a height can speak against a material
HEIGHT_DOUBT = 0.05


class NameClassifier(nn.Module):
    """Class name -> materials -> spectra at the scene's wavelengths -> P(class | pixel).

    Attributes:
        config: how it was made.
        text: whose vectors of names and captions were compared, as `text_vectors` takes it.
        bands: the bands that it reads.
        matches: what each class name was taken for, in the order of the classes.
        network: tells materials by spectra.
        heights: tells tall from low in the scene; None where no modality is marked `surface_height`.
        scale_G, offset_G: reflectance is scale * value + offset.
        haze_G: reflectance that the scene's air adds.
        materials_CM: weights of the materials in each class.
        ground_YX: ground of each cell of the scene, for heights.
        log_share_C: logarithm of each class's share in the scene, as far as it is corrected for.
    """

    def __init__(
        self,
        bands: SpectralBands,
        matches: Sequence[NameMatch],
        heights: HeightSplit | None,
        config: WordsConfig,
        text: str = WORDS,
    ) -> None:
        super().__init__()
        self.text = text
        self.config, self.bands, self.matches = config, bands, tuple(matches)
        self.network = MaterialNetwork(bands, config)
        self.heights = heights
        groups, materials = len(bands.groups), len(MATERIALS)
        self.scale_G: Tensor
        self.offset_G: Tensor
        self.haze_G: Tensor
        self.materials_CM: Tensor
        self.log_share_C: Tensor
        self.ground_YX: Tensor
        self.register_buffer("ground_YX", torch.zeros((0, 0) if heights is None else heights.cells))
        self.register_buffer("scale_G", torch.ones(groups))
        self.register_buffer("offset_G", torch.zeros(groups))
        self.register_buffer("haze_G", torch.zeros(groups))
        self.register_buffer("materials_CM", torch.zeros(len(self.matches), materials))
        self.register_buffer("log_share_C", torch.zeros(len(self.matches)))

    @classmethod
    def fit(
        cls, scene: ReadableScene, classes: Sequence[ClassName], config: WordsConfig = DEFAULTS, text: str = WORDS
    ) -> "NameClassifier":
        """Trains for the bands of a scene, from the library's spectra alone; no label is read.

        Args:
            scene: to be classified.
            classes: their names.
            config: how it is made.
            text: whose vectors of names and captions are compared, as `text_vectors` takes it.

        Raises:
            WordsUnavailable: the scene has no wavelengths or no reflectance, a package is missing, or a text bank has
                captions of too few materials.
            BadInput: the vectors cannot be read, or a bank has none of a class.
        """
        bands = SpectralBands.of(scene.record.modalities)
        matches, materials_CM = match_names(classes, config, text)
        split = find_split(scene)
        classifier = cls(bands, matches, split[0] if split else None, config, text)
        classifier.materials_CM.copy_(materials_CM)
        if split is not None:
            classifier.ground_YX.copy_(split[1])
        pixels = sample_pixels(scene, classifier.modalities)
        classifier._set_scale(pixels, {one.name: one.sensor for one in scene.record.modalities})
        classifier.network = MaterialNetwork.train_on(read_library(), bands, config)
        classifier._look_at(pixels)
        return classifier

    def for_scene(self, scene: ReadableScene) -> "NameClassifier":
        """The same names and spectra, with haze, heights and class shares of another scene of the same bands."""
        other = self._copy(self.matches, self.materials_CM, find_split(scene))
        other._look_at(sample_pixels(scene, other.modalities))
        return other

    def with_classes(self, classes: Sequence[ClassName]) -> "NameClassifier":
        """Other names over the same materials. Class shares are then not corrected; `for_scene` estimates them."""
        split = None if self.heights is None else (self.heights, self.ground_YX)
        return self._copy(*match_names(classes, self.config, self.text), split)

    def _copy(
        self, matches: Sequence[NameMatch], materials_CM: Tensor, split: tuple[HeightSplit, Tensor] | None
    ) -> "NameClassifier":
        other = NameClassifier(self.bands, matches, split[0] if split else None, self.config, self.text)
        other.network.load_state_dict(self.network.state_dict())
        other.scale_G.copy_(self.scale_G)
        other.offset_G.copy_(self.offset_G)
        other.haze_G.copy_(self.haze_G)
        other.materials_CM.copy_(materials_CM)
        if split is not None:
            other.ground_YX.copy_(split[1])
        return other

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that it reads: those with spectra, then the one with heights."""
        return self.bands.modalities if self.heights is None else (*self.bands.modalities, self.heights.modality)

    def log_probabilities(
        self, values: Mapping[str, Tensor], rows_P: Tensor | None = None, cols_P: Tensor | None = None
    ) -> Tensor:
        """log P(class | pixel), (P, C), finite; the same for all classes where a pixel has no spectrum.

        Args:
            values: modality to float (P, b) in the scene's own values; NaN where missing. A modality of heights may be
                left out.
            rows_P, cols_P: int64, on the classifier's device, where the pixels lie in the scene. With heights they find
                the ground below a pixel; without them all pixels have the scene's middle ground.
        """
        return self._log_probabilities(values, rows_P, cols_P, self.log_share_C)

    @torch.no_grad()
    def _log_probabilities(
        self, values: Mapping[str, Tensor], rows_P: Tensor | None, cols_P: Tensor | None, log_share_C: Tensor
    ) -> Tensor:
        reflectance_PG = self._reflectance(values)
        materials_PM: Tensor = self.network(reflectance_PG - self.haze_G)
        if self.heights is not None and self.heights.modality in values:
            heights_P = values[self.heights.modality][:, 0].float().to(self.ground_YX.device)
            tall_P = self.heights.tall(heights_P, self.ground_YX, rows_P, cols_P)
            materials_PM = materials_PM * _height_likelihood(tall_P)
            materials_PM = materials_PM / materials_PM.sum(dim=1, keepdim=True)
        scores_PC = (materials_PM @ self.materials_CM.T).clamp_min(LEAST_PROBABILITY).log() - log_share_C
        known_C = torch.tensor([match.known for match in self.matches], device=scores_PC.device)
        if known_C.any():
            # an unknown name is as likely as the known ones are on average
            scores_PC[:, ~known_C] = scores_PC[:, known_C].mean(dim=1, keepdim=True)
        else:
            scores_PC = torch.zeros_like(scores_PC)
        scores_PC[reflectance_PG.isnan().all(dim=1)] = 0.0
        logs_PC: Tensor = scores_PC.log_softmax(dim=1)
        return logs_PC

    def _reflectance(self, values: Mapping[str, Tensor]) -> Tensor:
        return self.bands.gathered(values).to(self.scale_G.device) * self.scale_G + self.offset_G

    def _set_scale(self, pixels: ScenePixels, sensors: Mapping[str, str | None]) -> None:
        gathered_PG, centres_nm = self.bands.gathered(pixels.tensors).double().numpy(), self.bands.centres_nm
        for name in self.bands.modalities:
            own = np.array([group.modality == name for group in self.bands.groups])
            found = reflectance_scale(gathered_PG[:, own], centres_nm[own], name, sensors[name])
            self.scale_G[torch.from_numpy(own)] = torch.from_numpy(found.scale_G).float()
            self.offset_G[torch.from_numpy(own)] = torch.from_numpy(found.offset_G).float()

    def _look_at(self, pixels: ScenePixels) -> None:
        """Estimates haze and class shares from pixels that stand for the scene."""
        haze = estimate_haze(self._reflectance(pixels.tensors).double().cpu().numpy(), self.bands.centres_nm)
        self.haze_G.copy_(torch.from_numpy(haze))
        device, none = self.haze_G.device, torch.zeros_like(self.log_share_C)
        rows_P, cols_P = torch.from_numpy(pixels.rows_P).to(device), torch.from_numpy(pixels.cols_P).to(device)
        shares_C = self._log_probabilities(pixels.tensors, rows_P, cols_P, none).exp().mean(dim=0)
        self.log_share_C.copy_(self.config.share_correction * shares_C.log())

    def settings(self) -> dict[str, Any]:
        """Everything but the tensors, as JSON values; see `from_settings`."""
        return {
            "config": asdict(self.config),
            "text": self.text,
            "groups": [asdict(group) for group in self.bands.groups],
            "matches": [asdict(match) for match in self.matches],
            "heights": None if self.heights is None else asdict(self.heights),
        }

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "NameClassifier":
        """A classifier as `settings` describes it; `load_state_dict` gives it its tensors.

        Raises:
            ValueError: the settings are no classifier's. They may be a stranger's.
        """
        groups = tuple(
            BandGroup(one["modality"], *(tuple(one[key]) for key in ("bands", "centres_nm", "widths_nm")))
            for one in settings["groups"]
        )
        matches = tuple(
            NameMatch(one["name"], tuple(NearCaption(**near) for near in one["nearest"]), one["known"])
            for one in settings["matches"]
        )
        heights, text = settings["heights"], settings.get("text", WORDS)
        if not is_text_source(text):
            raise ValueError(f"names' text: expected words, bank:FILE.npy or open_clip:MODEL, found {text!r}")
        split = None if heights is None else HeightSplit(**heights | {"cells": tuple(heights["cells"])})
        return cls(SpectralBands(groups), matches, split, WordsConfig(**settings["config"]), text)


def _height_likelihood(tall_P: Tensor) -> Tensor:
    """How well each material's standing fits each pixel's, (P, M); 1 where a height is missing."""
    low, high = HEIGHT_DOUBT, 1.0 - HEIGHT_DOUBT
    of_tall = torch.tensor([{True: high, False: low, None: 0.5}[material.tall] for material in MATERIALS]).to(tall_P)
    tall_P1 = tall_P[:, None]
    return (tall_P1 * of_tall + (1.0 - tall_P1) * (1.0 - of_tall)).nan_to_num(1.0)
