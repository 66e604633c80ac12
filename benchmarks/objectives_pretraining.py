"""Pretrains by one of several objectives, in a plain loop: the same windows in the same order for each.

Shapes: B windows, N tokens of a window, K tokens of a part, C bands, H groups of bands, Q components of a band metric,
D width, E width of compared vectors, A groups of G windows, J features of all modalities joined, L kinds of loss,
M modalities, S tokens of all windows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch
from plain_pretraining import MODEL, Drawn, LearnedScene, encode_parts, take_steps
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.feature_extraction.band_metric import fit_band_metric
from diffclip_dist.model.contrast import TEMPERATURE, PartContrast
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.mask_diffusion import MaskDiffusion, loss_terms, sample_keys, weighted_loss
from diffclip_dist.model.model_config import ModelConfig
from shards.archive.archive import Scene

RECONSTRUCTION: Final = ModelConfig(stem="wavelength")
GROUPS: Final = 8  # of bands, side by side in wavelength
KEPT_GROUPS: Final = 0.5  # chance of each
LEAST_DEVIATION: Final = 1e-4


class ObjectiveScene(LearnedScene):
    """A scene that windows are drawn from, and its band metric."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._present = np.logical_and.reduce([scene.valid[one.name] for one in scene.record.modalities])

    @cached_property
    def components(self) -> Mapping[str, Tensor]:
        """The projection (C, Q) of each modality, scaled so that the mean variance of a component is 1."""
        found = {}
        for schema in self.schemas:
            of_modality = self.windows.only({schema.name})
            metric = fit_band_metric(of_modality, self._present)
            seen_PQ = metric.components(of_modality.bands_at(*np.nonzero(self._present)))
            found[schema.key] = metric.projection_CK / seen_PQ.var(dim=0).mean().sqrt()
        return found


@dataclass(frozen=True)
class Sample(Drawn):
    """The windows of a step, the scene that they are of, and a generator of further draws."""

    scene: ObjectiveScene
    generator: torch.Generator


Parts = list[list[Tensor]]


class Objective(nn.Module, ABC):
    """What an encoder learns by."""

    encoder: MultimodalEncoder

    @abstractmethod
    def forward(self, sample: Sample) -> Tensor:
        """The loss of a step."""


class OfParts(Objective):
    """What compares two parts of a window."""

    def __init__(self, schemas: Sequence[ModalitySchema]) -> None:
        super().__init__()
        self.encoder = MultimodalEncoder(MODEL, schemas)

    def encode(self, sample: Sample, values: Sequence[Mapping[str, Tensor]] | None = None) -> Parts:
        """Tokens (B, K, D) of each modality, for each part; a part may see other values of the windows."""
        parts = encode_parts(self.encoder, sample.batch, sample.parts_B2K, values)
        return [[one.tokens_BKD for one in part] for part in parts]


class ContrastOfParts(OfParts):
    """As pretraining has it, except that the mean of a part is over all its pixels, also the few without a height."""

    def __init__(self, schemas: Sequence[ModalitySchema]) -> None:
        super().__init__(schemas)
        self.contrast = PartContrast(MODEL)

    def forward(self, sample: Sample) -> Tensor:
        return self.of_parts(sample, self.encode(sample))

    def of_parts(self, sample: Sample, parts: Parts) -> Tensor:
        """The loss between what the encoder made of both parts."""
        one, other = (
            [normalize(self.contrast.projector(tokens_BKD.mean(dim=1)), dim=1) for tokens_BKD in part] for part in parts
        )
        missed_M: Tensor = self.contrast(list(zip(one, other, strict=True)), sample.batch, sample.parts_B2K)
        return missed_M.sum() / len(sample.parts_B2K)


class BandGroupContrast(ContrastOfParts):
    """The same; of each window, each part lacks other groups of bands."""

    def forward(self, sample: Sample) -> Tensor:
        values = [
            {one.key: hide_groups(sample.batch.windows[one.key], sample.generator) for one in sample.batch.schemas}
            for _ in range(2)
        ]
        return self.of_parts(sample, self.encode(sample, values))


class ModalityContrast(ContrastOfParts):
    """The same, and a part of one modality is to be found by the other part of another."""

    def __init__(self, schemas: Sequence[ModalitySchema]) -> None:
        super().__init__(schemas)
        self.between = PartContrast(MODEL).projector

    def forward(self, sample: Sample) -> Tensor:
        parts = self.encode(sample)
        loss = self.of_parts(sample, parts)
        one, other = ([normalize(self.between(tokens.mean(dim=1)), dim=1) for tokens in part] for part in parts)
        pairs = [(a, b) for a in range(len(one)) for b in range(len(other)) if a != b]
        for a, b in pairs:
            loss = loss + info_nce(one[a], other[b]) / len(pairs)
        return loss


class NearPixelContrast(OfParts):
    """A pixel's token is to be found by that of the nearest pixel of the other part, among those of other windows."""

    def __init__(self, schemas: Sequence[ModalitySchema]) -> None:
        super().__init__(schemas)
        self.projector = PartContrast(MODEL).projector

    def forward(self, sample: Sample) -> Tensor:
        one_BK, other_BK = sample.parts_B2K.unbind(dim=1)
        side = MODEL.window
        distance_BK = (one_BK[:, :1] // side - other_BK // side) ** 2 + (one_BK[:, :1] % side - other_BK % side) ** 2
        near_B, row_B = distance_BK.argmin(dim=1), torch.arange(len(one_BK))
        one, other = self.encode(sample)
        losses = [
            info_nce(*(normalize(self.projector(of), dim=1) for of in (a[:, 0], b[row_B, near_B])))
            for a, b in zip(one, other, strict=True)
        ]
        return torch.stack(losses).sum()


class LabelsAndContrast(ContrastOfParts):
    """Contrast of parts, and each token is to be told by the labelled ones of other windows, as the head reads them."""

    def forward(self, sample: Sample) -> Tensor:
        parts = self.encode(sample)
        return told_by_others(as_read(parts), sample) + self.of_parts(sample, parts)


class WhitenedReconstruction(Objective):
    """Mask diffusion, as pretraining has it by default, with errors in the components of the scene's band metric."""

    def __init__(self, schemas: Sequence[ModalitySchema]) -> None:
        super().__init__()
        self.model = MaskDiffusion(RECONSTRUCTION, schemas)
        self.encoder = self.model.encoder

    def forward(self, sample: Sample) -> Tensor:
        model, batch = self.model, sample.batch
        keys_B = sample_keys(batch, 0, sample.step)
        drawn = model.draw(batch, keys_B)
        noised = {
            one.key: model.diffusion(batch.windows[one.key], drawn.t_B, drawn.noise[one.key]) for one in batch.schemas
        }
        predicted = model.predict(batch.schemas, noised, drawn.t_B, drawn.masks, batch.all_valid)
        visible, masked = [], []
        for one in batch.schemas:
            difference_BNC = predicted[one.key] - batch.windows[one.key]
            error_BN = (difference_BNC @ sample.scene.components[one.key]).square().mean(dim=2)
            visible.append((error_BN * drawn.masks[one.key].visible_BN).sum())
            masked.append((error_BN * drawn.masks[one.key].masked_BN).sum())
        sums_LM = torch.stack([torch.stack(visible), torch.stack(masked)])
        return weighted_loss(loss_terms(sums_LM, model.count(batch, keys_B)), RECONSTRUCTION)


def hide_groups(values_BNC: Tensor, generator: torch.Generator) -> Tensor:
    """Values with about half of the groups of bands at 0, the others scaled up; fewer bands than groups stay."""
    windows, _, bands = values_BNC.shape
    kept_BH = torch.rand(windows, GROUPS, generator=generator) < KEPT_GROUPS
    kept_BH[torch.arange(windows), torch.randint(GROUPS, (windows,), generator=generator)] = True
    if bands < GROUPS:
        return values_BNC
    kept_BC = kept_BH[:, torch.arange(bands) * GROUPS // bands].float()
    scale_B1 = (bands / kept_BC.sum(dim=1, keepdim=True)).sqrt()
    return values_BNC * (kept_BC * scale_B1)[:, None]


def info_nce(one_BE: Tensor, other_BE: Tensor) -> Tensor:
    """Symmetric InfoNCE between unit vectors, within groups of windows."""
    one_AGE, other_AGE = (of.view(-1, MODEL.contrast_group, of.shape[1]) for of in (one_BE, other_BE))
    cosine_AGG = one_AGE @ other_AGE.transpose(1, 2) / TEMPERATURE
    own_AG = cosine_AGG.diagonal(dim1=1, dim2=2)
    return ((cosine_AGG.logsumexp(dim=2) + cosine_AGG.logsumexp(dim=1)) / 2 - own_AG).mean()


def as_read(parts: Parts) -> tuple[Tensor, Tensor]:
    """Features (B, K, J) of both parts: standardised over all tokens of the batch, as a head does over a scene."""
    joined = []
    for pair in zip(*parts, strict=True):
        both_SD = torch.cat(pair, dim=1).flatten(0, 1)
        mean_D, deviation_D = both_SD.mean(dim=0), both_SD.std(dim=0).clamp_min(LEAST_DEVIATION)
        joined.append([(tokens_BKD - mean_D) / deviation_D for tokens_BKD in pair])
    one_BKJ, other_BKJ = (torch.cat([pair[place] for pair in joined], dim=2) for place in range(2))
    return one_BKJ, other_BKJ


def told_by_others(read: tuple[Tensor, Tensor], sample: Sample) -> Tensor:
    """Cross-entropy of the classes of half of the windows, told by their cosines with the tokens of the other half.

    Each class counts alike, however many tokens it has (matching networks: Vinyals et al. 2016).
    """
    half = len(sample.parts_B2K) // 2
    labels_B2K = sample.labels_BN[:, None].expand(-1, 2, -1).gather(2, sample.parts_B2K)
    (support_SJ, support_S), (query_SJ, query_S) = (
        (
            torch.cat([of[windows].flatten(0, 1) for of in read]),
            torch.cat([labels_B2K[windows, place].flatten() for place in range(2)]),
        )
        for windows in (slice(None, half), slice(half, None))
    )
    classes, place_S = torch.unique(support_S, return_inverse=True)
    known_S = torch.isin(query_S, classes) & (query_S > 0)
    member_SC = one_hot(place_S, len(classes)).float()
    cosine_SS = normalize(query_SJ[known_S], dim=1) @ normalize(support_SJ, dim=1).T / TEMPERATURE
    weight_SS = (cosine_SS - cosine_SS.amax(dim=1, keepdim=True).detach()).exp()
    score_SC = (weight_SS @ member_SC / member_SC.sum(dim=0)).clamp_min(1e-12).log()
    return cross_entropy(score_SC, torch.searchsorted(classes, query_S[known_S]))


OBJECTIVES: Final[Mapping[str, Callable[[Sequence[ModalitySchema]], Objective]]] = {
    "contrast of parts": ContrastOfParts,
    "mask diffusion, noise-whitened components": WhitenedReconstruction,
    "contrast of parts, groups of bands hidden": BandGroupContrast,
    "contrast of parts and of modalities": ModalityContrast,
    "contrast of near pixels": NearPixelContrast,
    "labels and contrast of parts": LabelsAndContrast,
}


def pretrain(scenes: Sequence[Scene], objective: str, steps: int, windows: int) -> MultimodalEncoder:
    """An encoder that learned.

    Args:
        scenes: each step takes the next.
        objective: of `OBJECTIVES`.
        steps: of AdamW, as in `PretrainConfig`.
        windows: a step.
    """
    known = [ObjectiveScene(scene) for scene in scenes]
    schemas = {schema.key: schema for one in known for schema in one.schemas}
    torch.manual_seed(0)
    model = OBJECTIVES[objective](tuple(schemas.values()))
    further = torch.Generator().manual_seed(1)  # draws of one objective alone, so that windows are the same for all

    def loss_of(scene: ObjectiveScene, drawn: Drawn, _: np.random.Generator) -> Tensor:
        loss: Tensor = model(Sample(drawn.batch, drawn.labels_BN, drawn.parts_B2K, drawn.step, scene, further))
        return loss

    take_steps(known, [*model.parameters()], loss_of, steps, windows, objective)
    return model.encoder.eval()
