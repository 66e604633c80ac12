"""The settings that the global order of samples depends on."""

from dataclasses import dataclass
from typing import Final

from shards.errors import BadInput

# version 1 sorted tables of all tiles and steps in each epoch; runs of that time do not state it
FIRST_VERSION: Final = 1
ORDER_VERSION: Final = 2


@dataclass(frozen=True)
class OrderConfig:
    """The settings that the order depends on; a change of any of these is a different run.

    Attributes:
        seed: of every random draw.
        global_batch: G, samples a step over all workers.
        shuffle_streams: streams that each batch takes an equal share from; divides ``global_batch``. More streams mix
            more tiles, fewer read less.
        shuffle_buffer: tiles that a stream shuffles at a time; bounds memory.
        pixel_share: share of each tile's valid pixels that training uses, in (0, 1]; the same pixels in every epoch.
        version: of the order; a run goes on in the one that it began in.
    """

    seed: int
    global_batch: int
    shuffle_streams: int
    shuffle_buffer: int
    pixel_share: float = 1.0
    version: int = ORDER_VERSION

    def __post_init__(self) -> None:
        if self.global_batch < 1 or self.shuffle_streams < 1 or self.global_batch % self.shuffle_streams:
            raise BadInput(
                f"stream.shuffle_streams: expected a divisor of the global batch ({self.global_batch}), "
                f"found {self.shuffle_streams}"
            )
        if self.shuffle_buffer < 1:
            raise BadInput(f"stream.shuffle_buffer: expected at least 1, found {self.shuffle_buffer}")
        if not 0.0 < self.pixel_share <= 1.0:
            raise BadInput(f"stream.pixel_share: expected more than 0 and at most 1, found {self.pixel_share:g}")

    @property
    def stream_batch(self) -> int:
        """Samples that each stream gives to a global batch."""
        return self.global_batch // self.shuffle_streams
