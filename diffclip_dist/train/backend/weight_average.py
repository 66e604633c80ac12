"""The exponential moving average of the weights, beside Adam's moments in the state of the optimizer.

The optimizer of each rank updates float32 master weights: the parameters themselves, or the rank's partitions of them.
Their average lies beside them, is sharded in the same way, and needs no communication.
"""

from typing import Final

import torch

AVERAGE: Final = "ema"  # in the optimizer's state, and in the names of a checkpoint's tensors


def keep_average(optimizer: torch.optim.Optimizer, decay: float) -> None:
    """Makes every step of the optimizer update the average of the weights; it starts from the first step's weights.

    At step t, counted from 1, the average keeps ``min(decay, (1 + t) / (10 + t))`` of itself, so that the first
    steps of a short run weigh little (the ``num_updates`` of TensorFlow's ``ExponentialMovingAverage``).

    Args:
        optimizer: a torch Adam, whose state counts its steps.
        decay: share of the average that a late step keeps, in (0, 1).
    """

    @torch.no_grad()
    def follow(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:  # DeepSpeed steps one group at a time
            for master in group["params"]:
                state = optimizer.state[master]
                if AVERAGE not in state:
                    state[AVERAGE] = master.detach().clone()
                    continue
                step = state["step"]  # it lies on the device where the update is fused, and nothing here waits for it
                kept = ((1.0 + step) / (10.0 + step)).clamp(max=decay)
                state[AVERAGE].lerp_(master, (1.0 - kept).to(master.device))

    optimizer.register_step_post_hook(follow)


def keeps_average(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer that has taken a step keeps an average."""
    return any(AVERAGE in state for state in optimizer.state.values())
