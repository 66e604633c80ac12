"""The global order: complete, the same for everybody, shuffled without bias, and different from epoch to epoch."""

import hashlib
import pickle
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffclip_dist.data.order import GlobalOrder, StepSamples
from diffclip_dist.data.order_config import OrderConfig
from shards.errors import BadInput

SENSORS = [[64] * 9 + [13, 1, 0], [64, 30]]


def whole(order: GlobalOrder, step: int) -> StepSamples:
    """All samples of a step."""
    return order.samples(range(step, step + 1), range(order.config.global_batch))[0]


def identities(order: GlobalOrder, steps: range) -> list[tuple[int, int, int]]:
    """(sensor, tile, pixel) of every sample, in order."""
    listed = []
    for samples in order.samples(steps, range(order.config.global_batch)):
        listed += [(samples.sensor, int(t), int(p)) for t, p in zip(samples.tile_B, samples.pixel_B, strict=True)]
    return listed


def surplus(counts: npt.NDArray[np.int64]) -> float:
    """How many standard deviations the chi-square of counts lies above what equal chances give."""
    expected = counts.sum() / len(counts)
    degrees = len(counts) - 1
    return float((((counts - expected) ** 2 / expected).sum() - degrees) / (2 * degrees) ** 0.5)


def assert_complete(order: GlobalOrder, tiles: list[list[int]], batch: int) -> None:
    """Each of two epochs takes no pixel twice, and leaves less than a batch of a sensor."""
    for epoch in range(2):
        start = epoch * order.steps_per_epoch
        taken = identities(order, range(start, start + order.steps_per_epoch))
        assert len(taken) == order.steps_per_epoch * batch
        assert max(Counter(taken).values()) == 1
        assert all(0 <= pixel < tiles[sensor][tile] for sensor, tile, pixel in taken)
        for sensor, pixels in enumerate(tiles):
            assert 0 <= sum(pixels) - sum(one[0] == sensor for one in taken) < batch


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
    assert_complete(GlobalOrder(tiles, config), tiles, batch)


@pytest.mark.parametrize(
    ("tiles", "batch", "streams", "buffer"),
    [
        ([[50]], 8, 4, 2),  # one tile for four streams
        ([[1] * 20], 4, 2, 3),  # tiles of one pixel
        ([[30, 1]], 31, 31, 1),  # a batch that is an epoch, and more streams than tiles
        ([[9, 0, 7, 0], []], 4, 1, 64),  # a buffer larger than the archive; a sensor without tiles
        ([[5] * 1500 + [3] * 20, [40]], 20, 4, 3),  # tiles in several blocks, which buffers reach across
    ],
)
def test_an_archive_of_an_odd_shape_is_taken_whole(
    tiles: list[list[int]], batch: int, streams: int, buffer: int
) -> None:
    assert_complete(GlobalOrder(tiles, OrderConfig(2, batch, streams, buffer)), tiles, batch)


def test_a_batch_larger_than_an_epoch_is_refused() -> None:
    with pytest.raises(BadInput, match=r"global batch: expected no more samples than .* pixels \(94\), found 96"):
        GlobalOrder([[64, 30]], OrderConfig(0, 96, 4, 2))


def test_an_order_of_another_version_is_refused() -> None:
    with pytest.raises(BadInput, match=r"stream.order_version: expected 2, .* found 1"):
        GlobalOrder(SENSORS, OrderConfig(0, 24, 4, 2, version=1))


def test_steps_can_be_asked_for_in_any_order() -> None:
    config = OrderConfig(seed=1, global_batch=24, shuffle_streams=4, shuffle_buffer=2)
    forward = GlobalOrder(SENSORS, config)
    steps = range(2 * forward.steps_per_epoch)
    expected = [identities(forward, range(step, step + 1)) for step in steps]
    assert identities(forward, steps) == [sample for step in expected for sample in step]
    for step in reversed(steps):
        assert identities(forward, range(step, step + 1)) == expected[step]
        assert identities(GlobalOrder(SENSORS, config), range(step, step + 1)) == expected[step]


@pytest.mark.parametrize("world_size", [1, 2, 3, 8, 24])
@pytest.mark.parametrize("pixel_share", [1.0, 0.4])
def test_ranks_that_work_out_their_own_samples_make_up_the_batch(world_size: int, pixel_share: float) -> None:
    config = OrderConfig(seed=1, global_batch=24, shuffle_streams=4, shuffle_buffer=2, pixel_share=pixel_share)
    order, share = GlobalOrder(SENSORS, config), 24 // world_size
    steps = range(2 * order.steps_per_epoch)
    ranks = [
        pickle.loads(pickle.dumps(order)).samples(steps, range(rank * share, (rank + 1) * share))  # noqa: S301
        for rank in range(world_size)
    ]
    for step, *parts in zip(steps, *ranks, strict=True):
        expected = whole(order, step)
        assert {part.sensor for part in parts} == {expected.sensor}
        assert np.concatenate([part.tile_B for part in parts]).tolist() == expected.tile_B.tolist()
        assert np.concatenate([part.pixel_B for part in parts]).tolist() == expected.pixel_B.tolist()


def test_epochs_and_seeds_differ() -> None:
    config = OrderConfig(seed=1, global_batch=24, shuffle_streams=4, shuffle_buffer=2)
    order = GlobalOrder(SENSORS, config)
    epoch = order.steps_per_epoch
    first = identities(order, range(epoch))
    assert first != identities(order, range(epoch, 2 * epoch))
    assert first != identities(GlobalOrder(SENSORS, OrderConfig(2, 24, 4, 2)), range(epoch))


def test_every_pixel_is_as_likely_at_each_place_of_an_epoch() -> None:
    epochs, parts, pixels = 1000, 20, 30 * 20
    order = GlobalOrder([[20] * 30], OrderConfig(8, pixels // 4, 2, 3))
    of_pixel = np.zeros((pixels, parts), dtype=np.int64)
    for epoch in range(epochs):
        samples = order.samples(range(4 * epoch, 4 * epoch + 4), range(pixels // 4))
        taken = np.concatenate([step.tile_B * 20 + step.pixel_B for step in samples])
        of_pixel[taken, np.arange(pixels) * parts // pixels] += 1
    surpluses = [surplus(counts) for counts in of_pixel]
    assert abs(np.mean(surpluses)) < 5 / 30**0.5  # the pixels of a tile move together
    assert max(surpluses) < 7


@pytest.mark.parametrize("count", [5, 24, 100])
def test_pixels_of_a_buffer_are_shuffled_without_bias(count: int) -> None:
    """Where two neighbours in a tile come to stand, and how far apart, over 4,000 epochs."""
    order = GlobalOrder([[count]], OrderConfig(8, count, 1, 1))
    pixels_EP = np.stack([step.pixel_B for step in order.samples(range(4000), range(count))])
    places_EP = np.argsort(pixels_EP, axis=1)
    gaps = (places_EP[:, 2] - places_EP[:, 1]) % count - 1
    assert abs(surplus(np.bincount(gaps, minlength=count - 1))) < 5
    for pixel in (0, 1, count - 1):
        assert abs(surplus(np.bincount(places_EP[:, pixel], minlength=count))) < 5
    following = pixels_EP[:, 1:] - pixels_EP[:, :-1] == 1
    assert abs(following.mean() - 1 / count) < 5 / (count * following.size) ** 0.5  # pairs that stay in order


def test_a_batch_mixes_tiles_of_all_streams_but_reads_few_at_once() -> None:
    order = GlobalOrder([[4096] * 2000], OrderConfig(seed=0, global_batch=256, shuffle_streams=8, shuffle_buffer=4))
    tiles_of_step = [set(whole(order, step).tile_B.tolist()) for step in range(32)]
    assert all(8 < len(tiles) <= 2 * 8 * 4 for tiles in tiles_of_step)
    assert len(set().union(*tiles_of_step)) <= 2 * 8 * 4
    rank = order.samples(range(32), range(32))  # of eight ranks, one stream each
    assert len({tile for samples in rank for tile in samples.tile_B.tolist()}) <= 2 * 4


def test_an_epoch_reads_each_tile_once_save_where_a_stream_ends() -> None:
    order = GlobalOrder([[64] * 600], OrderConfig(seed=4, global_batch=32, shuffle_streams=4, shuffle_buffer=3))
    steps = order.samples(range(order.steps_per_epoch), range(32))
    last: dict[int, int] = {}
    returns = 0
    for number, samples in enumerate(steps):
        for tile in set(samples.tile_B.tolist()):
            returns += number - last.get(tile, number) > 3 * 64 // 8  # longer than a stream takes for a buffer
            last[tile] = number
    assert len(last) == 600
    assert returns <= 4


def test_a_sensor_holds_the_whole_batch_and_keeps_its_share_throughout() -> None:
    order = GlobalOrder(SENSORS, OrderConfig(seed=5, global_batch=24, shuffle_streams=4, shuffle_buffer=2))
    sensors = [whole(order, step).sensor for step in range(order.steps_per_epoch)]
    assert Counter(sensors) == {0: sum(SENSORS[0]) // 24, 1: sum(SENSORS[1]) // 24}
    assert sensors != sorted(sensors)
    three = GlobalOrder([[64] * 30, [64] * 10, [64] * 20], OrderConfig(1, 16, 4, 2))
    taken = np.array([whole(three, step).sensor for step in range(three.steps_per_epoch)])
    for sensor, share in enumerate((1 / 2, 1 / 6, 1 / 3)):
        seen = np.cumsum(taken == sensor)
        assert np.abs(seen - share * np.arange(1, len(taken) + 1)).max() <= 2
    assert three.first_steps() == tuple(sorted(int(np.flatnonzero(taken == sensor)[0]) for sensor in range(3)))


@pytest.mark.parametrize(
    ("batch", "streams", "buffer", "share", "said"),
    [
        (256, 7, 4, 1.0, r"stream.shuffle_streams: expected a divisor of the global batch \(256\), found 7"),
        (0, 1, 4, 1.0, r"stream.shuffle_streams: expected a divisor of the global batch \(0\), found 1"),
        (8, -2, 4, 1.0, r"stream.shuffle_streams: expected a divisor of the global batch \(8\), found -2"),
        (8, 2, 0, 1.0, "stream.shuffle_buffer: expected at least 1, found 0"),
        (8, 2, 1, 0.0, "stream.pixel_share: expected more than 0 and at most 1, found 0"),
        (8, 2, 1, 1.01, r"stream.pixel_share: expected more than 0 and at most 1, found 1\.01"),
    ],
)
def test_settings_out_of_range_are_refused(batch: int, streams: int, buffer: int, share: float, said: str) -> None:
    with pytest.raises(BadInput, match=f"^{said}$"):
        OrderConfig(0, batch, streams, buffer, share)


def test_order_does_not_change_between_releases() -> None:
    """A checkpoint is resumed by later versions; whoever changes this order gives it a new version."""
    order = GlobalOrder([[16, 16, 9]], OrderConfig(seed=11, global_batch=4, shuffle_streams=2, shuffle_buffer=2))
    samples = whole(order, 3)
    assert samples.tile_B.tolist() == [1, 2, 0, 0]
    assert samples.pixel_B.tolist() == [12, 6, 6, 5]


@pytest.mark.parametrize(
    ("pixel_share", "expected"),
    [
        (1.0, "511f272761dbd551348740e66095f3ba4f6a2b002bc7c6b165989c85f6fd882e"),
        (0.4, "71006a2c0b74f46fc90c2317a9a80bf9925cb951780db85de1947ef3b02c0fe6"),
    ],
)
def test_the_order_of_a_large_archive_does_not_change_either(pixel_share: float, expected: str) -> None:
    """Sensors, blocks of tiles, epochs and shares of pixels: their SHA-256 as order 2 was first released with."""
    tiles = [[tile * 37 % 65 for tile in range(700)], [7] * 300, [tile % 3 for tile in range(90)]]
    order = GlobalOrder(tiles, OrderConfig(5, 60, 5, 3, pixel_share))
    digest = hashlib.sha256()
    for samples in order.samples(range(2 * order.steps_per_epoch + 9), range(60)):
        digest.update(np.concatenate([[samples.sensor], samples.tile_B, samples.pixel_B]).astype("<i8").tobytes())
    assert digest.hexdigest() == expected


def test_a_share_of_the_pixels_is_the_same_share_in_every_epoch() -> None:
    config = OrderConfig(seed=3, global_batch=4, shuffle_streams=2, shuffle_buffer=2, pixel_share=0.25)
    order = GlobalOrder([[16, 16, 9]], config)

    def drawn(epoch: int) -> set[tuple[int, int]]:
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        return {(tile, pixel) for _, tile, pixel in identities(order, steps)}

    several = [drawn(epoch) for epoch in range(12)]
    assert len(set().union(*several)) == 4 + 4 + 3
    assert any(epoch != several[0] for epoch in several), "which of them fall into an epoch changes"
