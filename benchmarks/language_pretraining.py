"""Pretrains by contrast of parts, with captions beside it or without, in a plain loop.

Shapes: D width, E width of a sentence vector, M captions, one a material, T tokens of both parts of a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from plain_pretraining import MODEL, Drawn, EncodedPart, LearnedScene, encode_parts, take_steps
from torch import Tensor, nn
from torch.nn.functional import normalize

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.contrast import PartContrast
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.words.materials import MATERIALS
from diffclip_dist.words.sentence_model import sentence_vectors
from shards.archive.archive import Scene

SENTENCE_WIDTH: Final = 384
TEMPERATURE: Final = 0.1
SPECTRA: Final = "hsi"


class CaptionHead(nn.Module):
    """From a token to the place of its caption among sentence vectors."""

    def __init__(self) -> None:
        super().__init__()
        hidden = 2 * MODEL.width
        self.layers = nn.Sequential(nn.Linear(MODEL.width, hidden), nn.GELU(), nn.Linear(hidden, SENTENCE_WIDTH))

    def forward(self, tokens_TD: Tensor) -> Tensor:
        """Unit vectors (T, E)."""
        return normalize(self.layers(tokens_TD), dim=-1)


@dataclass(frozen=True)
class Captions:
    """One wording of each material: its unit vector (M, E), and for which materials it is true, bool (M, M)."""

    vectors_ME: Tensor
    true_MM: Tensor

    @classmethod
    def draw(cls, random: np.random.Generator) -> "Captions":
        """Any wording of each; a wording that several materials share is true for each of them."""
        texts = [str(random.choice(material.captions)) for material in MATERIALS]
        true = [[text in material.captions for text in texts] for material in MATERIALS]
        return cls(torch.from_numpy(sentence_vectors(texts)), torch.tensor(true))


def caption_loss(vectors_TE: Tensor, material_T: Tensor, captions: Captions) -> Tensor:
    """Symmetric InfoNCE between tokens and captions: a mean over tokens, and one over the captions that are seen."""
    cosine_TM = vectors_TE @ captions.vectors_ME.T / TEMPERATURE
    true_TM = captions.true_MM[material_T]
    positive_TM = cosine_TM.masked_fill(~true_TM, -torch.inf)
    of_tokens = (cosine_TM.logsumexp(dim=1) - positive_TM.logsumexp(dim=1)).mean()
    seen_M = true_TM.any(dim=0)
    share_TM = cosine_TM[:, seen_M].log_softmax(dim=0)
    of_captions = -(share_TM * true_TM[:, seen_M]).sum(dim=0) / true_TM[:, seen_M].sum(dim=0)
    return (of_tokens + of_captions.mean()) / 2


class _PretrainingScene(LearnedScene):
    """A scene with the encoder of its modalities; whether its labels are read as captions."""

    def __init__(self, scene: Scene, encoder: MultimodalEncoder, captioned: bool) -> None:
        super().__init__(scene)
        self.encoder = encoder.for_modalities(self.schemas)
        self.captioned = captioned


def pretrain(
    scenes: Sequence[tuple[Scene, bool]], steps: int, windows: int, caption_weight: float
) -> tuple[MultimodalEncoder, CaptionHead]:
    """An encoder that learned by contrast, and its head for captions.

    Args:
        scenes: with whether their labels are read as captions; each step takes the next.
        steps: of AdamW, as in `PretrainConfig`.
        windows: a step.
        caption_weight: of the loss of captions; at 0 they are not read.
    """
    torch.manual_seed(0)
    encoder = MultimodalEncoder(MODEL, [ModalitySchema.of(one) for one in scenes[0][0].record.modalities])
    contrast, head = PartContrast(MODEL), CaptionHead()
    known = [_PretrainingScene(scene, encoder, captioned) for scene, captioned in scenes]
    trained = [*encoder.parameters(), *contrast.parameters()] + (list(head.parameters()) if caption_weight else [])

    def loss_of(scene: _PretrainingScene, drawn: Drawn, random: np.random.Generator) -> Tensor:
        captions = Captions.draw(random)  # drawn in either case: the samples are the same
        encoded = encode_parts(scene.encoder, drawn.batch, drawn.parts_B2K)
        missed_M: Tensor = contrast(_compared(contrast, encoded), drawn.batch, drawn.parts_B2K)
        loss = missed_M.sum() / windows
        if caption_weight and scene.captioned:
            place = [schema.name for schema in scene.schemas].index(SPECTRA)
            tokens_TD = torch.cat([part[place].tokens_BKD for part in encoded], dim=1).flatten(0, 1)
            material_T = drawn.labels_BN.gather(1, drawn.parts_B2K.flatten(1)).flatten() - 1
            loss = loss + caption_weight * caption_loss(head(tokens_TD), material_T, captions)
        return loss

    take_steps(known, trained, loss_of, steps, windows, "captions and contrast" if caption_weight else "contrast")
    return encoder.eval(), head.eval()


def _compared(contrast: PartContrast, parts: list[list[EncodedPart]]) -> list[tuple[Tensor, Tensor]]:
    """Unit vectors of both parts, for each modality."""
    return [
        (normalize(contrast.projector(one.mean()), dim=1), normalize(contrast.projector(other.mean()), dim=1))
        for one, other in zip(*parts, strict=True)
    ]
