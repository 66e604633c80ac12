"""The learning rate as a function of the step."""

import math

from diffclip_dist.train.pretrain_config import OptimiserConfig


def learning_rate(step: int, steps: int, config: OptimiserConfig) -> float:
    """Linear warm-up, then half a cosine down to ``final_share`` of the peak at the last step.

    It depends on no earlier step. So a run that is resumed with more steps follows, from there on, the schedule of a
    run that was given so many at first: after the last step of the shorter run the rate goes up again, at once.

    Args:
        step: counted from 0.
        steps: of the whole run.
        config: peak, warm-up and final share.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, steps - 1 - config.warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return config.learning_rate * (config.final_share + (1.0 - config.final_share) * cosine)
