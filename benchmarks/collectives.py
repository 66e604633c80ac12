"""The collectives of a training step, as DeepSpeed runs them and as its log counts them."""

import math
from dataclasses import dataclass
from typing import Final, Literal

from diffclip_dist.train.backend.deepspeed_engine import BUCKET
from diffclip_dist.train.backend.deepspeed_import import deepspeed

Kind = Literal["all_reduce", "all_gather", "reduce_scatter"]

# DeepSpeed's default: the most numbers that ZeRO 3 keeps between the forward and the backward pass instead of gathering
# them again
LARGEST_KEPT: Final = 1_000_000_000

# DeepSpeed's names of the collectives, and how often the size it logs makes up the whole message
_LOGGED: Final[dict[str, Kind]] = {
    "all_reduce": "all_reduce",
    "all_gather_into_tensor": "all_gather",
    "reduce_scatter_tensor": "reduce_scatter",
}


@dataclass(frozen=True)
class Traffic:
    """Collectives of one kind in a step.

    Attributes:
        kind: of collective.
        bytes: of the whole message: what each worker ends up with (gather) or starts from (reduce).
        calls: into which it is divided.
    """

    kind: Kind
    bytes: float
    calls: int


def traffic_of_step(
    parameters: int, tensors: int, value_bytes: int, zero_stage: int, micro_batches: int
) -> tuple[Traffic, ...]:
    """A step's collectives.

    ZeRO 1 and 2 could do with a reduce-scatter (Rajbhandari et al. 2020, section 7); DeepSpeed takes an all-reduce of
    whole buckets, which sends twice as much.

    Args:
        parameters: of the model.
        tensors: into which they are divided; ZeRO 3 gathers each by itself.
        value_bytes: of a parameter, and of its gradient.
        zero_stage: 0 to 3.
        micro_batches: of a step; ZeRO 2 and 3 reduce gradients after each, the others once.
    """
    whole = parameters * value_bytes
    buckets = math.ceil(parameters / BUCKET)
    if zero_stage < 3:
        times = micro_batches if zero_stage == 2 else 1
        reduced = Traffic("all_reduce", whole * times, buckets * times)
        return (reduced,) if zero_stage == 0 else (reduced, Traffic("all_gather", whole, buckets))
    gathers = micro_batches * (1 if parameters <= LARGEST_KEPT else 2)
    return (
        Traffic("all_gather", whole * gathers, tensors * gathers),
        Traffic("reduce_scatter", whole * micro_batches, buckets * micro_batches),
    )


def start_counting() -> None:
    """Makes DeepSpeed log the collectives of this process from here on."""
    deepspeed.comm.configure(enabled=True, prof_all=True, verbose=False)
    deepspeed.comm.reset_log()


def counted(workers: int) -> tuple[Traffic, ...]:
    """The collectives since `start_counting`; the counting ends here."""
    deepspeed.comm.configure(enabled=False, prof_all=False)
    log = deepspeed.comm.comm.comms_logger.get_raw_data()
    found = []
    for name, kind in _LOGGED.items():
        sizes = {int(size): int(record[0]) for size, record in log.get(name, {}).items()}
        # the log has a gather's size by the part that each worker gives
        parts = workers if kind == "all_gather" else 1
        total = sum(size * calls for size, calls in sizes.items()) * parts
        if total:
            found.append(Traffic(kind, total, sum(sizes.values())))
    return tuple(found)
