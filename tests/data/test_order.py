"""The global order: complete, the same for everybody, and different from epoch to epoch."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffclip_dist.data.order import GlobalOrder, OrderConfig
from shards.errors import BadInput

SENSORS = [[64] * 9 + [13, 1, 0], [64, 30]]


def identities(order: GlobalOrder, steps: range) -> list[tuple[int, int, int]]:
    """(sensor, tile, pixel) of every sample, in order."""
    listed = []
    for step in steps:
        samples = order.step(step)
        listed += [(samples.sensor, int(t), int(p)) for t, p in zip(samples.tile_G, samples.pixel_G, strict=True)]
    return listed


@settings(deadline=None, max_examples=40)
@given(
    tiles=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=8), min_size=1, max_size=3),
    streams=st.integers(1, 5),
    share=st.integers(1, 6),
    buffer=st.integers(1, 4),
    seed=st.integers(0, 2**63),
)
def test_an_epoch_takes_no_pixel_twice_and_leaves_less_than_a_batch_of_a_sensor(
    tiles: list[list[int]], streams: int, share: int, buffer: int, seed: int
) -> None:
    batch = streams * share
    config = OrderConfig(seed, batch, streams, buffer)
    if max(map(sum, tiles)) < batch:
        with pytest.raises(BadInput, match="global batch"):
            GlobalOrder(tiles, config)
        return
    order = GlobalOrder(tiles, config)
    for epoch in range(2):
        start = epoch * order.steps_per_epoch
        taken = identities(order, range(start, start + order.steps_per_epoch))
        assert len(taken) == order.steps_per_epoch * batch
        assert max(Counter(taken).values()) == 1
        assert all(0 <= pixel < tiles[sensor][tile] for sensor, tile, pixel in taken)
        for sensor, pixels in enumerate(tiles):
            assert 0 <= sum(pixels) - sum(one[0] == sensor for one in taken) < batch


def test_steps_can_be_asked_for_in_any_order() -> None:
    config = OrderConfig(seed=1, global_batch=24, shuffle_streams=4, shuffle_buffer=2)
    forward = GlobalOrder(SENSORS, config)
    steps = range(2 * forward.steps_per_epoch)
    expected = [identities(forward, range(step, step + 1)) for step in steps]
    for step in reversed(steps):
        assert identities(GlobalOrder(SENSORS, config), range(step, step + 1)) == expected[step]


def test_epochs_and_seeds_differ() -> None:
    config = OrderConfig(seed=1, global_batch=24, shuffle_streams=4, shuffle_buffer=2)
    order = GlobalOrder(SENSORS, config)
    epoch = order.steps_per_epoch
    first = identities(order, range(epoch))
    assert first != identities(order, range(epoch, 2 * epoch))
    assert first != identities(GlobalOrder(SENSORS, OrderConfig(2, 24, 4, 2)), range(epoch))


def test_a_batch_mixes_tiles_of_all_lanes_but_reads_few_at_once() -> None:
    order = GlobalOrder([[4096] * 200], OrderConfig(seed=0, global_batch=256, shuffle_streams=8, shuffle_buffer=4))
    tiles_of_step = [set(order.step(step).tile_G.tolist()) for step in range(32)]
    assert all(8 < len(tiles) <= 2 * 8 * 4 for tiles in tiles_of_step)
    assert len(set().union(*tiles_of_step)) <= 2 * 8 * 4


def test_a_sensor_holds_the_whole_batch() -> None:
    order = GlobalOrder(SENSORS, OrderConfig(seed=5, global_batch=24, shuffle_streams=4, shuffle_buffer=2))
    sensors = [order.step(step).sensor for step in range(order.steps_per_epoch)]
    assert Counter(sensors) == {0: sum(SENSORS[0]) // 24, 1: sum(SENSORS[1]) // 24}
    assert sensors != sorted(sensors)


def test_lanes_must_divide_the_batch() -> None:
    with pytest.raises(
        BadInput, match=r"stream.shuffle_streams: expected a divisor of the global batch \(256\), found 7"
    ):
        OrderConfig(seed=0, global_batch=256, shuffle_streams=7, shuffle_buffer=4)


def test_order_does_not_change_between_releases() -> None:
    """A checkpoint is resumed by later versions; whoever changes this order must break that knowingly."""
    order = GlobalOrder([[16, 16, 9]], OrderConfig(seed=11, global_batch=4, shuffle_streams=2, shuffle_buffer=2))
    samples = order.step(3)
    assert samples.tile_G.tolist() == [2, 0, 2, 1]
    assert samples.pixel_G.tolist() == [3, 11, 0, 4]


def test_a_share_of_the_pixels_is_the_same_share_in_every_epoch() -> None:
    config = OrderConfig(seed=3, global_batch=4, shuffle_streams=2, shuffle_buffer=2, pixel_share=0.25)
    order = GlobalOrder([[16, 16, 9]], config)

    def drawn(epoch: int) -> set[tuple[int, int]]:
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        samples = [order.step(step) for step in steps]
        return {(int(t), int(p)) for one in samples for t, p in zip(one.tile_G, one.pixel_G, strict=True)}

    several = [drawn(epoch) for epoch in range(12)]
    assert len(set().union(*several)) == 4 + 4 + 3
    assert any(epoch != several[0] for epoch in several), "which of them fall into an epoch changes"
