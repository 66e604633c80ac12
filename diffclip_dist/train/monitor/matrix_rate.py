"""The device's best rate, measured with a large matrix product."""

import time

import torch
from torch import Tensor

_SIDE = {"cpu": 1024, "cuda": 8192}


def matrix_rate(device: torch.device, dtype: torch.dtype, repeats: int = 5) -> float:
    """FLOP/s of one square matrix product on this process's device and threads, the best of some repeats.

    The numbers are random: a GPU multiplies ones faster. A GPU is timed by its own clock. Its memory for the
    measurement is given back and does not count in what torch reports as the most that was allocated.
    """
    side = _SIDE[device.type]
    numbers = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(side, side, device=device, generator=numbers).to(dtype) for _ in range(2))
    best = min(_seconds(left, right) for _ in range(repeats + 1))
    del left, right
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    return 2.0 * side**3 / best


def _seconds(left: Tensor, right: Tensor) -> float:
    if left.device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        _ = left @ right
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3
    began = time.perf_counter()
    _ = left @ right
    return time.perf_counter() - began
