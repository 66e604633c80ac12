"""What pretraining in a plain loop shares, whatever the objective: windows of scenes, their parts, and the steps.

Shapes: B windows, N tokens of a window, K tokens of a part, C bands, D width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.data.windows import SceneWindows
from diffclip_dist.model.contrast import draw_parts
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.mask_diffusion import gather_tokens
from diffclip_dist.model.presets import preset_model
from diffclip_dist.train.pretrain_config import OptimiserConfig
from diffclip_dist.train.schedule import learning_rate
from shards.archive.archive import Scene

MODEL: Final = preset_model("contrast")


class LearnedScene:
    """A labelled scene that windows are drawn from."""

    def __init__(self, scene: Scene) -> None:
        self.schemas = tuple(ModalitySchema.of(one) for one in scene.record.modalities)
        self.windows = SceneWindows(scene, scene.record, MODEL.window)
        self._shape = scene.record.height, scene.record.width
        assert scene.labels is not None
        self._labels = scene.labels.astype(np.int64)

    def draw(self, count: int, random: np.random.Generator) -> tuple[WindowBatch, Tensor]:
        """Windows that lie within the scene, and the class of each token (B, N), 0 for none."""
        reach = MODEL.window // 2
        rows, cols = (random.integers(reach, size - reach, count) for size in self._shape)
        values, valid = self.windows.gather(rows, cols)
        batch = WindowBatch(
            self.schemas,
            torch.arange(count),
            {schema.key: values[schema.name] for schema in self.schemas},
            {schema.key: valid[schema.name] for schema in self.schemas},
            all(bool(one.all()) for one in valid.values()),
        )
        down, right = (offset.ravel() - reach for offset in np.indices((MODEL.window, MODEL.window)))
        return batch, torch.from_numpy(self._labels[rows[:, None] + down, cols[:, None] + right])


@dataclass(frozen=True)
class EncodedPart:
    """Tokens (B, K, D) that the encoder makes of a part of a modality, and which of them have data, bool (B, K)."""

    tokens_BKD: Tensor
    held_BK: Tensor

    def mean(self) -> Tensor:
        """(B, D) over the tokens that have data."""
        return (self.tokens_BKD * self.held_BK[..., None]).sum(dim=1) / self.held_BK.sum(dim=1).clamp_min(1)[:, None]


def encode_parts(
    encoder: MultimodalEncoder,
    batch: WindowBatch,
    parts_B2K: Tensor,
    values: Sequence[Mapping[str, Tensor]] | None = None,
) -> list[list[EncodedPart]]:
    """Each part of each modality, as `PartContrast` reads them.

    Args:
        encoder: knows the batch's modalities.
        batch: the windows.
        parts_B2K: from `draw_parts`.
        values: for each part, other values of the windows; None takes their own.
    """
    t_B = torch.zeros(len(parts_B2K), dtype=torch.int64)
    parts = []
    for place, slots_BK in enumerate(parts_B2K.unbind(dim=1)):
        seen = batch.windows if values is None else values[place]
        sequences, held = [], []
        for schema in batch.schemas:
            values_BKC = gather_tokens(seen[schema.key], slots_BK)
            sequences.append(encoder.embed(schema, values_BKC, encoder.positions_ND[slots_BK], t_B))
            held.append(batch.valid[schema.key].gather(1, slots_BK))
        present = [torch.cat([one.new_ones(len(one), 1), one], dim=1) for one in held]
        encoded = encoder.encode(sequences, None if batch.all_valid else present)
        parts.append([EncodedPart(one[:, 1:], has) for one, has in zip(encoded, held, strict=True)])
    return parts


OfScene = TypeVar("OfScene", bound=LearnedScene)


@dataclass(frozen=True)
class Drawn:
    """The windows of a step.

    Attributes:
        batch: the windows.
        labels_BN: class of each token, 0 for none.
        parts_B2K: from `draw_parts`.
        step: counted from 0.
    """

    batch: WindowBatch
    labels_BN: Tensor
    parts_B2K: Tensor
    step: int


def take_steps(
    scenes: Sequence[OfScene],
    trained: Sequence[nn.Parameter],
    loss_of: Callable[[OfScene, Drawn, np.random.Generator], Tensor],
    steps: int,
    windows: int,
    objective: str,
) -> None:
    """Steps of AdamW, as in `PretrainConfig`; the windows are the same for every objective.

    Args:
        scenes: each step takes the next.
        trained: the weights.
        loss_of: the loss of a step; what it draws from the generator moves the windows of later steps.
        steps: that are taken.
        windows: a step.
        objective: named in the lines of progress.
    """
    config = OptimiserConfig()
    matrices, others = ([one for one in trained if (one.ndim > 1) is wide] for wide in (True, False))
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
        betas=config.betas,
    )
    generator, random = torch.Generator().manual_seed(0), np.random.default_rng(0)
    for step, scene in enumerate(_in_turn(scenes, steps, random)):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, config)
        batch, labels_BN = scene.draw(windows, random)
        parts_B2K = draw_parts(torch.rand(windows, MODEL.tokens, generator=generator), MODEL)
        loss = loss_of(scene, Drawn(batch, labels_BN, parts_B2K, step), random)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trained, config.clip_norm)
        optimiser.step()
        if step % 25 == 24:
            print(f"{objective}: step {step + 1} of {steps}: loss {float(loss.detach()):.3f}", flush=True)


def _in_turn(scenes: Sequence[OfScene], steps: int, random: np.random.Generator) -> Iterator[OfScene]:
    order: list[int] = []
    for _ in range(steps):
        order = order or random.permutation(len(scenes)).tolist()
        yield scenes[order.pop()]
