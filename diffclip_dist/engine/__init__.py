"""Training: DeepSpeed engines under Ray Train."""

import os

import torch

# DeepSpeed would find this out by itself, and say so on standard output
if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
