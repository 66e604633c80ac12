"""Pretraining: DeepSpeed engines under Ray Train."""

import os

import torch

from diffclip_dist.train.cluster.local_ray import LOOPBACK_ONLY

# DeepSpeed would find this out by itself, and say so on standard output
if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

# Ray reads this when it is imported: a run that starts a Ray of its own keeps to loopback, one on a cluster may not
if "RAY_ADDRESS" not in os.environ:
    os.environ.update({name: value for name, value in LOOPBACK_ONLY.items() if name not in os.environ})
