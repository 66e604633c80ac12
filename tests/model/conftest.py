"""A small model and a batch of two modalities with missing pixels."""

from dataclasses import replace

import pytest
import torch

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.mask_diffusion import MaskDiffusion
from diffclip_dist.model.model_config import ModelConfig

SCHEMAS = (ModalitySchema("hsi", 9), ModalitySchema("lidar", 2))


@pytest.fixture
def config() -> ModelConfig:
    return ModelConfig(window=5, width=16, depth=2, heads=2, decoder_depth=1, timestep_width=8, masked_weight=0.1)


@pytest.fixture
def model(config: ModelConfig) -> MaskDiffusion:
    torch.manual_seed(0)
    return MaskDiffusion(config, SCHEMAS)


@pytest.fixture
def batch(config: ModelConfig) -> WindowBatch:
    """Six windows; in the third a part of lidar is missing, in the fourth all of it."""
    generator = torch.Generator().manual_seed(1)
    windows, valid = {}, {}
    for schema in SCHEMAS:
        valid[schema.key] = torch.ones(6, config.tokens, dtype=torch.bool)
        windows[schema.key] = torch.randn(6, config.tokens, schema.bands, generator=generator)
    lidar = SCHEMAS[1].key
    valid[lidar][2, 5:19] = False
    valid[lidar][3] = False
    windows[lidar][~valid[lidar]] = 0.0
    return WindowBatch(SCHEMAS, torch.arange(10, 16), windows, valid, all_valid=False)


@pytest.fixture
def full_batch(batch: WindowBatch) -> WindowBatch:
    """The windows of it that have every pixel."""
    rows = torch.tensor([0, 1, 4, 5])
    return replace(
        batch,
        positions_B=batch.positions_B[rows],
        windows={key: values[rows] for key, values in batch.windows.items()},
        valid={key: values[rows] for key, values in batch.valid.items()},
        all_valid=True,
    )
