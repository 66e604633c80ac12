"""Supports and queries: nested, disjoint, reproducible, and fair about what they cannot give."""

import itertools

import numpy as np
import pytest

from diffclip_dist.fewshot.episodes import Episode, LabelMap, Pixels, Reference, draw_episode
from shards.errors import BadInput

NAMES = {1: "roof", 2: "tree", 3: "water", 9: "soil"}


def positions(pixels: Pixels, class_id: int | None = None) -> set[tuple[int, int]]:
    chosen = np.ones(len(pixels), bool) if class_id is None else pixels.class_ids == class_id
    return set(zip(pixels.rows[chosen].tolist(), pixels.cols[chosen].tolist(), strict=True))


def label_map(height: int = 90, width: int = 110, water: int = 3) -> LabelMap:
    labels: LabelMap = np.random.default_rng(5).integers(0, 3, (height, width)).astype(np.uint16)
    labels.ravel()[np.random.default_rng(6).choice(labels.size, water, replace=False)] = 3
    return labels


def reference(height: int = 90, width: int = 110, water: int = 3) -> Reference:
    return Reference.of_maps(label_map(height, width, water), NAMES)


@pytest.mark.parametrize("protocol", ["random", "blocks"])
def test_fewer_shots_are_among_more(protocol: str) -> None:
    for seed in range(5):
        drawn = [draw_episode(reference(), k, seed, protocol, 5) for k in (1, 2, 5, 20)]  # type: ignore[arg-type]
        for fewer, more in itertools.pairwise(drawn):
            assert positions(fewer.support) < positions(more.support)


@pytest.mark.parametrize("protocol", ["random", "blocks"])
def test_labels_are_those_of_the_map_and_no_query_was_learned_from(protocol: str) -> None:
    labels = label_map()
    episode = draw_episode(reference(), 5, 1, protocol, 5)  # type: ignore[arg-type]
    for pixels in (episode.support, episode.query):
        assert np.array_equal(labels[pixels.rows, pixels.cols], pixels.class_ids)
    assert not positions(episode.support) & positions(episode.query)


def test_random_tests_on_every_other_labelled_pixel() -> None:
    episode = draw_episode(reference(), 5, 0, "random", 5)
    assert len(episode.support) + len(episode.query) == len(reference().labels)
    assert len(positions(episode.support, 1)) == len(positions(episode.support, 2)) == 5


def test_seeds_differ_and_repeat() -> None:
    def drawn(seed: int) -> Episode:
        return draw_episode(reference(), 5, seed, "random", 5)

    assert positions(drawn(0).support) == positions(drawn(0).support)
    assert positions(drawn(0).support) != positions(drawn(1).support)


def test_another_class_changes_no_other_draw() -> None:
    dry = label_map()
    dry[dry == 3] = 0
    with_water, without_water = reference(), Reference.of_maps(dry, NAMES)
    one, other = (draw_episode(r, 5, 2, "random", 5) for r in (with_water, without_water))
    assert positions(one.support, 1) == positions(other.support, 1)


@pytest.mark.parametrize("footprint", [1, 5, 11, 13])
def test_no_test_window_shares_a_pixel_with_a_training_window(footprint: int) -> None:
    for seed in range(4):
        episode = draw_episode(reference(water=40), 5, seed, "blocks", footprint)
        reach = footprint // 2
        seen = np.zeros(reference().shape, bool)
        for row, col in positions(episode.support):
            seen[max(row - reach, 0) : row + reach + 1, max(col - reach, 0) : col + reach + 1] = True
        for row, col in positions(episode.query):
            assert not seen[max(row - reach, 0) : row + reach + 1, max(col - reach, 0) : col + reach + 1].any()


def test_blocks_put_every_class_on_both_sides_where_they_can() -> None:
    for seed in range(10):
        episode = draw_episode(reference(water=40), 2, seed, "blocks", 5)
        assert set(episode.support.class_ids.tolist()) == set(episode.query.class_ids.tolist()) == {1, 2, 3}
        assert not episode.notes


def test_a_class_with_fewer_pixels_than_shots_keeps_one_to_test_on_and_says_so() -> None:
    episode = draw_episode(reference(water=3), 20, 0, "random", 5)
    assert len(positions(episode.support, 3)) == 2
    assert len(positions(episode.query, 3)) == 1
    assert [note for note in episode.notes if "water" in note and "2 of 20 shots" in note]
    alone = draw_episode(reference(water=1), 1, 0, "random", 5)
    assert not positions(alone.support, 3)
    assert [note for note in alone.notes if "water" in note and "0 of 1 shots" in note]


def test_a_class_without_a_labelled_pixel_is_no_class() -> None:
    assert reference().classes() == (1, 2, 3)


def test_the_official_split_is_held_to() -> None:
    labels = label_map()
    train, test = np.zeros_like(labels), np.zeros_like(labels)
    train[:40], test[40:] = labels[:40], labels[40:]
    episode = draw_episode(Reference.of_maps(labels, NAMES, (train, test)), 5, 0, "official", 5)
    assert max(row for row, _ in positions(episode.support)) < 40
    assert len(episode.query) == np.count_nonzero(test)


def test_an_official_split_that_is_not_there_is_bad_input() -> None:
    with pytest.raises(BadInput, match="official"):
        draw_episode(reference(), 1, 0, "official", 5)


def test_a_scene_too_small_for_blocks_is_bad_input() -> None:
    with pytest.raises(BadInput, match="no labelled pixel"):
        draw_episode(reference(height=6, width=6), 1, 0, "blocks", 11)
