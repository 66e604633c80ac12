"""How long a step takes on any number of workers: computing, collectives, what of them hides, and data.

A worker computes its windows' operations at the rate that it reaches. Collectives take a time per
byte and a time per call (the ring's byte counts and the tree's depth: Thakur et al. 2005, section 4). A share of them
runs beside the backward pass. Loader processes read beside all of it, and a step waits only if reading takes longer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from collectives import Kind, Traffic

BACKWARD_SHARE = 2 / 3  # of a step's operations: two products for each one of the forward pass


@dataclass(frozen=True)
class Link:
    """A link between workers.

    Attributes:
        bytes_per_s: that one worker sends, and receives, in a collective.
        call_s: seconds of a collective of nothing, per doubling of the workers.
    """

    bytes_per_s: float
    call_s: float

    @classmethod
    def told_from(cls, kind: Kind, workers: int, small: tuple[int, float], large: tuple[int, float]) -> "Link":
        """The link that explains how long a small and a large collective took.

        Args:
            kind: of collective.
            workers: that took part, at least 2.
            small: bytes and seconds of one call.
            large: the same of another.
        """
        (few, quick), (many, slow) = small, large
        byte_s = max(slow - quick, 1e-9) / (many - few)
        sent = _passes(kind) * (workers - 1) / workers
        call_s = max(0.0, quick - few * byte_s) / (_passes(kind) * math.ceil(math.log2(workers)))
        return cls(sent / byte_s, call_s)


@dataclass(frozen=True)
class Cluster:
    """Workers and the links between them.

    Attributes:
        flops_per_s: that a worker reaches on this model, waiting left out.
        near: the link between workers of a node, by kind of collective; empty where a worker is alone.
        far: the link once a second node takes part.
        workers_per_node: so many share the near link.
        read_bytes_per_s: of tiles that a worker reads and makes ready.
        reads_ahead: whether loader processes do so beside the worker.
        overlap: share of the backward pass that collectives can hide behind, 0 to 1.
    """

    flops_per_s: float
    near: Mapping[Kind, Link]
    far: Mapping[Kind, Link]
    workers_per_node: int
    read_bytes_per_s: float
    reads_ahead: bool
    overlap: float


@dataclass(frozen=True)
class WorkerStep:
    """The work of one worker in a step.

    Attributes:
        flops: matrix operations of its windows, forward and backward.
        bytes_read: of the archive.
        traffic: its collectives.
    """

    flops: float
    bytes_read: float
    traffic: Sequence[Traffic]


@dataclass(frozen=True)
class StepSeconds:
    """A step's wall clock in parts, which add up to it.

    Attributes:
        compute: the model.
        communication: collectives that do not hide behind it.
        data: waiting for samples.
        hidden: collectives that do hide; no part of the sum.
    """

    compute: float
    communication: float
    data: float
    hidden: float

    @property
    def total(self) -> float:
        """The step."""
        return self.compute + self.communication + self.data

    @property
    def communication_share(self) -> float:
        """Of the step, 0 to 1."""
        return self.communication / self.total


def _passes(kind: Kind) -> int:
    """An all-reduce goes around twice: it reduces, then gathers."""
    return 2 if kind == "all_reduce" else 1


def collective_seconds(traffic: Traffic, workers: int, link: Link) -> float:
    """One kind's collectives among so many workers, at least 2."""
    passes = _passes(traffic.kind)
    sent = passes * (workers - 1) / workers * traffic.bytes
    return sent / link.bytes_per_s + traffic.calls * passes * math.ceil(math.log2(workers)) * link.call_s


def step_seconds(step: WorkerStep, workers: int, cluster: Cluster) -> StepSeconds:
    """A step's wall clock on so many workers."""
    compute = step.flops / cluster.flops_per_s
    links = cluster.near if workers <= cluster.workers_per_node else cluster.far
    traffic = step.traffic if workers > 1 else ()
    collectives = sum(collective_seconds(each, workers, links[each.kind]) for each in traffic)
    hidden = min(collectives, cluster.overlap * BACKWARD_SHARE * compute)
    busy = compute + collectives - hidden
    read = step.bytes_read / cluster.read_bytes_per_s
    waited = max(0.0, read - busy) if cluster.reads_ahead else read
    return StepSeconds(compute, collectives - hidden, waited, hidden)


def weak_efficiency(step: WorkerStep, workers: int, cluster: Cluster) -> float:
    """Windows a second per worker over those of one worker alone, 0 to 1, each worker's step the same."""
    # where a step waits for its data, the parts add up to the same but for rounding
    return min(1.0, step_seconds(step, 1, cluster).total / step_seconds(step, workers, cluster).total)
