"""How closely the loss of a loaded checkpoint must be the one that was noted when it was saved.

Each checkpoint notes the loss of one fixed batch (`step.probe_loss`), and what the numbers were computed with. Where
all of that is the same, the loss must be the same to the last bit. Where something differs that rounds otherwise (the
micro-batch, the number of workers, the ZeRO stage, the device, its threads, a library), a tolerance takes its place.

The loss alone cannot tell every wrong checkpoint from another rounding. Its relative differences, measured with the
default model on the generated scene after 1 to 100 steps, in float32 on a CPU:

| what differs | relative difference of the loss |
|---|---|
| the micro-batch (1 to 128), one thread or two | up to 2e-7 |
| weights are rounded to TF32 or bfloat16 | 5e-6 to 4e-4 |
| every weight is one step older | 1e-3, at the end of the decay, to 8e-2 |
| one tensor is one step older | 0 to 8e-3 |

The tolerance, 1e-4, lies between the first row and the third. For the last row no tolerance would do. So every loaded
tensor is read back and must equal the stored one bit for bit (`sharded_state.differing_tensor`), and the stored files
have their hashes; no arithmetic changes either. The loss then shows that the model computes with these weights what it
computed before.
"""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
import torch.distributed as dist

from diffclip_dist.train.pretrain_config import PretrainConfig

_OTHER_ORDER: Final = 1e-4  # numbers are added up in another order
_OTHER_PRECISION: Final = 1e-2  # products are rounded to TF32 or bfloat16


def arithmetic(config: PretrainConfig, device: torch.device, versions: Mapping[str, str]) -> dict[str, str]:
    """What the run's numbers are computed with; every rank must call.

    Args:
        config: the run's settings.
        device: of this rank.
        versions: of the libraries.
    """
    devices: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(devices, _device_name(device))
    return {
        "devices": ", ".join(sorted(set(devices))),
        "workers": str(dist.get_world_size()),
        "zero_stage": str(config.chosen_stage),
        "micro_batch": str(min(config.micro_batch, config.global_batch // dist.get_world_size())),
        "precision": config.precision,
        "matrix_precision": torch.get_float32_matmul_precision(),
        "compile": str(config.compiles(device.type)),
        "torch": versions["torch"],
        "deepspeed": versions["deepspeed"],
    }


def loss_tolerance(saved: Mapping[str, str], loaded: Mapping[str, str]) -> float:
    """The largest relative difference of the fixed batch's loss, 0 where nothing may differ.

    Args:
        saved: the arithmetic when the checkpoint was saved; empty where it is not known.
        loaded: the arithmetic now.
    """
    if any(each.get("precision") == "bfloat16" for each in (saved, loaded)):
        return _OTHER_PRECISION  # DeepSpeed rounds bfloat16 weights again when it loads them
    if saved == loaded and loaded["compile"] == str(False):  # compiled code depends on the shapes that came first
        return 0.0
    return _OTHER_ORDER if saved.get("matrix_precision", "highest") == loaded["matrix_precision"] else _OTHER_PRECISION


def differences(saved: Mapping[str, str], loaded: Mapping[str, str]) -> str:
    """What differs, for messages."""
    other = [
        f"{name} {saved.get(name, 'unknown')} -> {loaded[name]}" for name in loaded if saved.get(name) != loaded[name]
    ]
    return ", ".join(other) or "nothing"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
