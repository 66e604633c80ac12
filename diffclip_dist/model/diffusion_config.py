"""The settings of the noise schedule and of the prediction."""

from dataclasses import dataclass
from typing import Literal, get_args

from shards.errors import BadInput

Schedule = Literal["linear", "cosine"]
Target = Literal["x0", "eps", "v"]
Weighting = Literal["constant", "min_snr"]


@dataclass(frozen=True)
class DiffusionConfig:
    """The noise schedule, and the prediction. The defaults are the published values, except the greatest timestep.

    Attributes:
        timesteps: T, at least 1.
        schedule: ``linear`` in beta (Ho et al. 2020), or ``cosine`` in the signal left (Nichol and
            Dhariwal 2021, eq. 17).
        beta_start: variance added at the first timestep, in (0, 1); of the linear schedule.
        beta_end: variance added at the last timestep; of the linear schedule.
        lowest_timestep: least t that pretraining draws, 0 or more.
        highest_timestep: greatest t that pretraining draws; ``None`` is T - 1 (published). Noisier windows
            tell the model little, and an encoder that never saw them classifies better from few shots.
        target: what the decoders predict at visible tokens: the clean values ``x0``, the noise ``eps``, or ``v``
            (Salimans and Ho 2022). At masked tokens it is always ``x0``: their noise never reaches the model.
        weighting: of a token's loss by its timestep: ``constant``, or ``min_snr`` (Hang et al. 2023).
        snr_cap: gamma of ``min_snr``, above 0.
    """

    timesteps: int = 1000
    schedule: Schedule = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    lowest_timestep: int = 0
    highest_timestep: int | None = 299
    target: Target = "x0"
    weighting: Weighting = "constant"
    snr_cap: float = 5.0

    def __post_init__(self) -> None:
        if self.timesteps < 1:
            raise BadInput(f"diffusion.timesteps: expected at least 1, found {self.timesteps}")
        if not 0.0 < self.beta_start <= self.beta_end < 1.0:
            raise BadInput(
                "diffusion.beta_start, diffusion.beta_end: expected 0 < start <= end < 1, "
                f"found {self.beta_start} and {self.beta_end}"
            )
        for name, kinds in (("schedule", Schedule), ("target", Target), ("weighting", Weighting)):
            if getattr(self, name) not in get_args(kinds):
                raise BadInput(
                    f"diffusion.{name}: expected {' or '.join(get_args(kinds))}, found {getattr(self, name)}"
                )
        if not 0 <= self.lowest_timestep <= self.last_drawn < self.timesteps:
            raise BadInput(
                "diffusion.lowest_timestep, diffusion.highest_timestep: expected 0 <= lowest <= highest < "
                f"{self.timesteps}, found {self.lowest_timestep} and {self.last_drawn}"
            )
        if self.snr_cap <= 0.0:
            raise BadInput(f"diffusion.snr_cap: expected more than 0, found {self.snr_cap}")

    @property
    def last_drawn(self) -> int:
        """The greatest timestep that pretraining draws."""
        return self.timesteps - 1 if self.highest_timestep is None else self.highest_timestep
