"""Pretrains by contrast of parts, with captions beside it or without, in a plain loop.

Shapes: B windows, N tokens of a window, K tokens of a part, C bands, D width, E width of a sentence vector, M captions,
one a material, T tokens of both parts of a batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.data.windows import SceneWindows
from diffclip_dist.model.contrast import PartContrast, draw_parts
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.presets import preset_model
from diffclip_dist.train.pretrain_config import OptimiserConfig
from diffclip_dist.train.schedule import learning_rate
from diffclip_dist.words.materials import MATERIALS
from diffclip_dist.words.sentence_model import sentence_vectors
from shards.archive.archive import Scene

MODEL: Final = preset_model("contrast")
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


class _PretrainingScene:
    def __init__(self, scene: Scene, encoder: MultimodalEncoder, captioned: bool) -> None:
        self.schemas = tuple(ModalitySchema.of(one) for one in scene.record.modalities)
        self.encoder = encoder.for_modalities(self.schemas)
        self._windows = SceneWindows(scene, scene.record, MODEL.window)
        self._shape = scene.record.height, scene.record.width
        assert scene.labels is not None
        self._material = scene.labels.astype(np.int64) - 1 if captioned else None

    def draw(self, count: int, random: np.random.Generator) -> tuple[WindowBatch, Tensor | None]:
        """Windows that lie within the scene, and the material of each token (B, N) where captions tell it."""
        reach = MODEL.window // 2
        rows, cols = (random.integers(reach, size - reach, count) for size in self._shape)
        values, valid = self._windows.gather(rows, cols)
        batch = WindowBatch(
            self.schemas,
            torch.arange(count),
            {schema.key: values[schema.name] for schema in self.schemas},
            {schema.key: valid[schema.name] for schema in self.schemas},
            all(bool(one.all()) for one in valid.values()),
        )
        if self._material is None:
            return batch, None
        down, right = (offset.ravel() - reach for offset in np.indices((MODEL.window, MODEL.window)))
        return batch, torch.from_numpy(self._material[rows[:, None] + down, cols[:, None] + right])


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
    config = OptimiserConfig()
    matrices, others = [one for one in trained if one.ndim > 1], [one for one in trained if one.ndim < 2]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
        betas=config.betas,
    )
    generator, random = torch.Generator().manual_seed(0), np.random.default_rng(0)
    for step, scene in enumerate(_in_turn(known, steps, random)):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, config)
        batch, material_BN = scene.draw(windows, random)
        parts_B2K = draw_parts(torch.rand(windows, MODEL.tokens, generator=generator), MODEL)
        captions = Captions.draw(random)  # drawn in either case: the samples are the same
        encoded = _encode_parts(scene.encoder, batch, parts_B2K)
        loss = contrast(_compared(contrast, encoded), batch, parts_B2K).sum() / windows
        if caption_weight and material_BN is not None:
            place = [schema.name for schema in scene.schemas].index(SPECTRA)
            tokens_TD = torch.cat([part[place].tokens_BKD for part in encoded], dim=1).flatten(0, 1)
            material_T = material_BN.gather(1, parts_B2K.flatten(1)).flatten()
            loss = loss + caption_weight * caption_loss(head(tokens_TD), material_T, captions)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trained, config.clip_norm)
        optimiser.step()
        if step % 25 == 24:
            print(f"step {step + 1} of {steps}: loss {float(loss.detach()):.3f}", flush=True)
    return encoder.eval(), head.eval()


def _in_turn(
    scenes: Sequence[_PretrainingScene], steps: int, random: np.random.Generator
) -> Iterator[_PretrainingScene]:
    order: list[int] = []
    for _ in range(steps):
        order = order or random.permutation(len(scenes)).tolist()
        yield scenes[order.pop()]


@dataclass(frozen=True)
class _EncodedPart:
    """Tokens (B, K, D) that the encoder makes of a part of a modality, and which of them have data, bool (B, K)."""

    tokens_BKD: Tensor
    held_BK: Tensor

    def mean(self) -> Tensor:
        """(B, D) over the tokens that have data."""
        return (self.tokens_BKD * self.held_BK[..., None]).sum(dim=1) / self.held_BK.sum(dim=1).clamp_min(1)[:, None]


def _encode_parts(encoder: MultimodalEncoder, batch: WindowBatch, parts_B2K: Tensor) -> list[list[_EncodedPart]]:
    """Each part of each modality, as `PartContrast` reads them."""
    t_B = torch.zeros(len(parts_B2K), dtype=torch.int64)
    parts = []
    for slots_BK in parts_B2K.unbind(dim=1):
        sequences, held = [], []
        for schema in batch.schemas:
            values_BNC = batch.windows[schema.key]
            values_BKC = values_BNC.gather(1, slots_BK[..., None].expand(-1, -1, values_BNC.shape[2]))
            sequences.append(encoder.embed(schema, values_BKC, encoder.positions_ND[slots_BK], t_B))
            held.append(batch.valid[schema.key].gather(1, slots_BK))
        present = [torch.cat([one.new_ones(len(one), 1), one], dim=1) for one in held]
        encoded = encoder.encode(sequences, None if batch.all_valid else present)
        parts.append([_EncodedPart(one[:, 1:], has) for one, has in zip(encoded, held, strict=True)])
    return parts


def _compared(contrast: PartContrast, parts: list[list[_EncodedPart]]) -> list[tuple[Tensor, Tensor]]:
    """Unit vectors of both parts, for each modality."""
    return [
        (normalize(contrast.projector(one.mean()), dim=1), normalize(contrast.projector(other.mean()), dim=1))
        for one, other in zip(*parts, strict=True)
    ]
