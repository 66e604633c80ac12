"""Imports DeepSpeed once its device is known. All other modules import DeepSpeed from here."""

import os

import torch

# DeepSpeed reads this when it is imported; without it, it looks for a device itself and prints what it found
if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
import deepspeed.comm
from deepspeed import DeepSpeedEngine
from deepspeed.ops.op_builder import AsyncIOBuilder

__all__ = ["AsyncIOBuilder", "DeepSpeedEngine", "deepspeed"]
