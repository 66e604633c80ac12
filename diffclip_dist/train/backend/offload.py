"""DeepSpeed's settings for offload, and whether a node supports offload to disk."""

from typing import Any, Final

import torch

from diffclip_dist.train.backend.deepspeed_import import AsyncIOBuilder
from diffclip_dist.train.pretrain_config import OffloadConfig, Place

_DEVICES: Final[dict[Place, str]] = {"none": "none", "host": "cpu", "disk": "nvme"}


def offload_settings(config: OffloadConfig, largest_parameter: int) -> dict[str, Any]:
    """The part of DeepSpeed's ``zero_optimization`` that places state off the device.

    Args:
        config: the run's offload settings.
        largest_parameter: numbers in the model's largest tensor; a buffer for the disk must hold it.
    """
    common: dict[str, Any] = {"pin_memory": torch.cuda.is_available()}
    if config.to_disk:
        common["nvme_path"] = config.folder
    settings = {}
    if config.optimizer != "none":
        # one for each tensor of a partition: weights, gradient, two moments and an average
        settings["offload_optimizer"] = {"device": _DEVICES[config.optimizer], "buffer_count": 5, **common}
    if config.parameters != "none":
        settings["offload_param"] = {
            "device": _DEVICES[config.parameters], "buffer_size": largest_parameter, **common
        }  # fmt: skip
    return settings


def reaches_disk() -> bool:
    """Whether DeepSpeed can keep state on this node's disk: it needs libaio with its headers, and a C++ compiler."""
    return bool(AsyncIOBuilder().is_compatible(verbose=False))
