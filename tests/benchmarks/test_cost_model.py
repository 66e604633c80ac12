"""The cost model: closed forms, limits, and what must hold for any cluster."""

import math
from dataclasses import replace

import pytest
from collectives import LARGEST_KEPT, Kind, Traffic, traffic_of_step
from cost_model import (
    Cluster,
    Link,
    WorkerStep,
    collective_seconds,
    step_seconds,
    weak_efficiency,
)
from hypothesis import given
from hypothesis import strategies as st

KINDS: tuple[Kind, ...] = ("all_reduce", "all_gather", "reduce_scatter")
NEAR, FAR = Link(1e9, 0.0), Link(1e8, 0.0)
CLUSTER = Cluster(1e12, dict.fromkeys(KINDS, NEAR), dict.fromkeys(KINDS, FAR), 8, 1e9, True, 0.0)


def test_an_all_reduce_goes_around_the_ring_twice_and_the_others_once() -> None:
    assert collective_seconds(Traffic("all_reduce", 1e9, 1), 4, NEAR) == pytest.approx(2 * 3 / 4)
    assert collective_seconds(Traffic("all_gather", 1e9, 1), 4, NEAR) == pytest.approx(3 / 4)
    assert collective_seconds(Traffic("reduce_scatter", 1e9, 1), 4, NEAR) == pytest.approx(3 / 4)
    assert collective_seconds(Traffic("all_gather", 0, 10), 8, Link(1e9, 1e-3)) == pytest.approx(10 * 3 * 1e-3)


@given(
    kind=st.sampled_from(KINDS),
    workers=st.integers(2, 64),
    rate=st.floats(1e6, 1e12),
    call_s=st.floats(1e-6, 1e-2),
)
def test_a_link_is_told_from_what_it_takes(kind: Kind, workers: int, rate: float, call_s: float) -> None:
    link = Link(rate, call_s)
    small, large = ((size, collective_seconds(Traffic(kind, size, 1), workers, link)) for size in (1 << 12, 1 << 30))
    told = Link.told_from(kind, workers, small, large)
    for size in (1 << 20, 1 << 32):
        expected = collective_seconds(Traffic(kind, size, 1), workers, link)
        assert collective_seconds(Traffic(kind, size, 1), workers, told) == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_one_worker_alone_only_computes() -> None:
    step = WorkerStep(2e12, 0.0, traffic_of_step(10**6, 100, 4, 1, 1))
    seconds = step_seconds(step, 1, replace(CLUSTER, near={}, far={}))
    assert (seconds.compute, seconds.communication, seconds.data) == (2.0, 0.0, 0.0)


def test_the_far_link_takes_over_where_a_node_ends() -> None:
    step = WorkerStep(1e12, 0.0, (Traffic("all_reduce", 1e9, 1),))
    within, beyond = (step_seconds(step, workers, CLUSTER).communication for workers in (8, 9))
    assert within == pytest.approx(2 * 7 / 8)
    assert beyond == pytest.approx(2 * 8 / 9 * 10)


def test_collectives_hide_behind_the_backward_pass_and_no_further() -> None:
    cluster = replace(CLUSTER, overlap=0.5)
    short, long = (WorkerStep(3e12, 0.0, (Traffic("all_gather", size, 1),)) for size in (1e9, 8e9))
    assert step_seconds(short, 2, cluster).communication == 0.0
    # the backward pass takes 2 of 3 seconds, of which half can hide 1 of 4
    assert step_seconds(long, 2, cluster).communication == pytest.approx(3.0)
    assert step_seconds(long, 2, cluster).hidden == pytest.approx(1.0)


def test_reading_ahead_is_waited_for_only_beyond_the_rest() -> None:
    step = WorkerStep(1e12, 3e9, ())
    assert step_seconds(step, 1, CLUSTER).total == pytest.approx(3.0)
    assert step_seconds(replace(step, bytes_read=5e8), 1, CLUSTER).data == 0.0
    assert step_seconds(step, 1, replace(CLUSTER, reads_ahead=False)).total == pytest.approx(4.0)


@given(
    stage=st.integers(0, 3),
    doublings=st.integers(0, 9),
    overlap=st.floats(0.0, 1.0),
    bytes_read=st.floats(0.0, 1e10),
    call_s=st.floats(0.0, 1e-3),
)
def test_more_workers_never_make_each_faster(
    stage: int, doublings: int, overlap: float, bytes_read: float, call_s: float
) -> None:
    cluster = replace(
        CLUSTER,
        overlap=overlap,
        near=dict.fromkeys(KINDS, replace(NEAR, call_s=call_s)),
        far=dict.fromkeys(KINDS, replace(FAR, call_s=call_s)),
    )
    step = WorkerStep(1e12, bytes_read, traffic_of_step(10**8, 300, 2, stage, 1))
    few, many = (weak_efficiency(step, 1 << power, cluster) for power in (doublings, doublings + 1))
    assert many <= few * (1 + 1e-12)
    assert few <= 1.0
    seconds = step_seconds(step, 1 << doublings, cluster)
    assert seconds.total == pytest.approx(seconds.compute + seconds.communication + seconds.data)
    assert math.isfinite(seconds.total)


def test_accumulation_repeats_the_collectives_that_each_micro_batch_needs() -> None:
    def total(stage: int, micro_batches: int, parameters: int = 1000) -> dict[str, float]:
        return {part.kind: part.bytes for part in traffic_of_step(parameters, 10, 4, stage, micro_batches)}

    assert total(0, 3) == {"all_reduce": 4000}
    assert total(1, 3) == {"all_reduce": 4000, "all_gather": 4000}
    assert total(2, 3) == {"all_reduce": 12000, "all_gather": 4000}
    assert total(3, 3) == {"all_gather": 12000, "reduce_scatter": 12000}
    huge = LARGEST_KEPT + 1
    assert total(3, 1, huge) == {"all_gather": 8 * huge, "reduce_scatter": 4 * huge}
