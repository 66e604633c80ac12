"""Chooses the precision of a run that leaves it to the machine (``precision: auto``).

On GPUs bfloat16 is the faster. On CPUs it depends on their instructions, so the model's own step is timed.
"""

import time
from dataclasses import replace
from typing import Final, Literal

import torch

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.mask_diffusion import MaskDiffusion, draw_noise_and_masks
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.train.pretrain_config import PretrainConfig

Chosen = Literal["float32", "bfloat16"]

_SECONDS: Final = 2.0
_WINDOWS: Final = 16  # of a timed step
# float32 is the more exact and the same on every machine, so bfloat16 has to be clearly faster
_CLEARLY_FASTER: Final = 1.1
# a hyperspectral and a height modality; the number of bands hardly matters to the choice
_SCHEMAS: Final = (ModalitySchema("hsi", 144), ModalitySchema("height", 1))


def with_chosen_precision(config: PretrainConfig, on_gpus: bool) -> PretrainConfig:
    """The configuration with ``auto`` resolved; any other precision stays.

    Args:
        config: the run's settings.
        on_gpus: whether the workers have GPUs; else this machine's CPU is measured with the threads that torch has.
    """
    if config.precision != "auto":
        return config
    return replace(config, precision="bfloat16" if on_gpus else faster_on_cpu(config.model))


def faster_on_cpu(model: ModelConfig, seconds: float = _SECONDS) -> Chosen:
    """The precision in which this machine's CPU takes a training step of the model in less time.

    Args:
        model: sizes of the model.
        seconds: how long is measured; the two precisions take turns, at least twice each.
    """
    model = replace(model, contrast_group=_WINDOWS)  # where parts are compared, there are fewer windows than in a run
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        measured = MaskDiffusion(model, _SCHEMAS)
        windows = {schema.key: torch.randn(_WINDOWS, model.tokens, schema.bands) for schema in _SCHEMAS}
    valid = {schema.key: torch.ones(_WINDOWS, model.tokens, dtype=torch.bool) for schema in _SCHEMAS}
    batch = WindowBatch(_SCHEMAS, torch.arange(_WINDOWS), windows, valid, all_valid=True)
    drawn = draw_noise_and_masks(batch, model, seed=0, step=0)

    def step(autocasts: bool) -> float:
        measured.autocasts = autocasts
        start = time.perf_counter()
        measured(batch, drawn).sum().backward()
        return time.perf_counter() - start

    times: dict[bool, list[float]] = {False: [], True: []}
    end = time.perf_counter() + seconds
    while len(times[True]) < 2 or time.perf_counter() < end:  # the first of each warms up and is rarely the least
        for autocasts, taken in times.items():
            taken.append(step(autocasts))
    return "bfloat16" if min(times[False]) > _CLEARLY_FASTER * min(times[True]) else "float32"
