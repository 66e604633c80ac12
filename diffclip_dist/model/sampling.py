"""Reconstructs masked tokens over the reverse chain (deterministic DDIM: Song et al. 2021, eq. 12, sigma = 0).

Pretraining shapes the chain. The encoder gets t and x_t of the visible tokens. It never gets x_t of a masked token, and
the decoders predict x_0 there, whatever `DiffusionConfig.target` is. So each link takes the decoders' x_0 at masked
tokens and the true values at visible ones. Then the chain's equation moves visible tokens along
sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps with the same eps throughout: at each timestep the encoder gets tokens with the
noise of that timestep, as in pretraining.

It also follows that what a link says does not depend on the links before it. The first one, made while the visible
tokens are all but noise, is what the model knows of any window; the last one, made while they are all but clean, is
where the chain ends; those between show how much each noise level leaves to go by.

Shapes: B windows, N tokens of a window, C bands.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.model.diffusion_config import DiffusionConfig
from diffclip_dist.model.mask_diffusion import MaskDiffusion, NoiseAndMasks
from diffclip_dist.model.masking import TokenMask


@dataclass(frozen=True)
class Link:
    """One timestep of a chain.

    Attributes:
        timestep: t, of every window.
        noised: modality key to x_t (B, N, C).
        clean: modality key to x_0 (B, N, C): the model's prediction at masked tokens, true values elsewhere.
    """

    timestep: int
    noised: Mapping[str, Tensor]
    clean: Mapping[str, Tensor]


@dataclass(frozen=True)
class ReverseChain:
    """A chain from noise to windows.

    Attributes:
        masks: modality key to what was hidden.
        links: from the greatest timestep to the least.
    """

    masks: Mapping[str, TokenMask]
    links: tuple[Link, ...]

    @property
    def reconstructed(self) -> Mapping[str, Tensor]:
        """The chain's end, modality key to standardised values (B, N, C): predicted at masked tokens, true elsewhere.

        Beyond the last link no noise is left (abar = 1), and eq. 12 gives that link's x_0.
        """
        return self.links[-1].clean

    @property
    def one_step(self) -> Mapping[str, Tensor]:
        """The result of a single link from the greatest timestep."""
        return self.links[0].clean


def chain_timesteps(config: DiffusionConfig, steps: int) -> tuple[int, ...]:
    """Timesteps of a chain, falling and evenly spaced over those that pretraining draws, both ends among them.

    Args:
        config: the schedule.
        steps: links, at least 1; a schedule of fewer timesteps takes each once. One link starts from the greatest.
    """
    assert steps >= 1
    highest, lowest = config.last_drawn, config.lowest_timestep
    count = min(steps, highest - lowest + 1)
    return tuple(highest - (highest - lowest) * link // max(count - 1, 1) for link in range(count))


@torch.no_grad()
def reverse_chain(model: MaskDiffusion, batch: WindowBatch, drawn: NoiseAndMasks, steps: int) -> ReverseChain:
    """Reconstructs the masked tokens of windows.

    Args:
        model: with whole parameters, on the batch's device.
        batch: the windows; a missing token is neither visible nor masked and stays as it is.
        drawn: from `mask_diffusion.draw_noise_and_masks`. Masked tokens start from its noise, and visible tokens are
            noised with it. Its timesteps are not used.
        steps: links of the chain, at least 1.
    """
    diffusion = model.diffusion
    masked = {key: mask.masked_BN[..., None] for key, mask in drawn.masks.items()}
    timesteps = chain_timesteps(model.config.diffusion, steps)
    batches_t = [torch.full_like(drawn.t_B, timestep) for timestep in timesteps]
    noised = {
        key: torch.where(masked[key], drawn.noise[key], diffusion(values_BNC, batches_t[0], drawn.noise[key]))
        for key, values_BNC in batch.windows.items()
    }
    links: list[Link] = []
    for timestep, t_B in zip(timesteps, batches_t, strict=True):
        if links:
            before_B, clean = batches_t[len(links) - 1], links[-1].clean
            noised = {key: diffusion.earlier(x_BNC, before_B, clean[key], t_B) for key, x_BNC in noised.items()}
        predicted = model.predict(batch.schemas, noised, t_B, drawn.masks, all_filled=False)
        said = {
            key: torch.where(masked[key], predicted[key].to(torch.float32), values_BNC)
            for key, values_BNC in batch.windows.items()
        }
        links.append(Link(timestep, noised, said))
    return ReverseChain(drawn.masks, tuple(links))
