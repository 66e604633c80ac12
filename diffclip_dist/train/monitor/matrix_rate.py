"""The device's best rate, measured with a large matrix product."""

import time

import torch

_SIDE = {"cpu": 1024, "cuda": 8192}


def matrix_rate(device: torch.device, dtype: torch.dtype, repeats: int = 5) -> float:
    """FLOP/s of one square matrix product on this process's device and threads, the best of some repeats."""
    side = _SIDE[device.type]
    left = torch.ones(side, side, device=device, dtype=dtype)
    right = torch.ones(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(repeats + 1):
        start = time.perf_counter()
        product = left @ right
        float(product[0, 0])  # this waits for the device
        best = min(best, time.perf_counter() - start)
    return 2.0 * side**3 / best
