"""Labels held out by folds, samples of too many labels, and what cross-validation makes of them."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score

from diffclip_dist.fewshot.cross_validation import CrossValidation
from diffclip_dist.fewshot.episodes import Pixels
from diffclip_dist.fewshot.label_folds import Fold, Folds, block_folds, stratified_folds
from diffclip_dist.fewshot.label_sample import balanced_quotas, proportional_quotas, spread_sample
from shards.errors import BadInput

WIDTH = 100


def labels(counts: dict[int, int], seed: int = 0) -> Pixels:
    """So many labelled pixels of each class at random places of a scene of 100 x 100 pixels, row by row."""
    total = sum(counts.values())
    places = np.random.default_rng(seed).choice(WIDTH**2, total, replace=False)
    order = np.argsort(places)
    class_ids = np.repeat(list(counts), list(counts.values()))
    rows, cols = np.divmod(places[order], WIDTH)
    return Pixels(rows, cols, class_ids[order])


def positions(pixels: Pixels) -> list[tuple[int, int]]:
    return list(zip(pixels.rows.tolist(), pixels.cols.tolist(), strict=True))


def check_folds(folds: Folds, given: Pixels) -> None:
    """No fold tests what it learned, and no label is tested twice."""
    tested = [place for fold in folds.folds for place in positions(fold.tested)]
    assert len(tested) == len(set(tested))
    assert set(tested) <= set(positions(given))
    for fold in folds.folds:
        assert not set(positions(fold.tested)) & set(positions(fold.learned))
        assert set(fold.tested.class_ids.tolist()) <= set(fold.learned.class_ids.tolist())


def test_two_labels_a_class_are_left_out_one_by_one() -> None:
    given = labels({1: 2, 4: 2, 9: 2})
    folds = stratified_folds(given, given, seed=0)
    check_folds(folds, given)
    assert folds.kind == "leave-one-out"
    assert [(len(fold.learned), len(fold.tested)) for fold in folds.folds] == [(5, 1)] * 6
    assert folds.describe() == "by cross-validation over the labels, 6 folds (leave-one-out)"


def test_a_classs_only_label_is_always_learned_from_and_never_tested() -> None:
    given = labels({1: 2, 4: 1})
    folds = stratified_folds(given, given, seed=0)
    check_folds(folds, given)
    assert [fold.tested.class_ids.tolist() for fold in folds.folds] == [[1], [1]]
    assert all(4 in fold.learned.class_ids for fold in folds.folds)
    with pytest.raises(BadInput, match="a class with at least two"):
        stratified_folds(labels({1: 1, 4: 1}), labels({1: 1, 4: 1}), seed=0)


@pytest.mark.parametrize(("counts", "folds"), [({1: 300, 2: 57, 3: 2}, 10), ({1: 3000, 2: 570}, 5)])
def test_folds_have_equal_shares_of_each_class(counts: dict[int, int], folds: int) -> None:
    given = labels(counts)
    found = stratified_folds(given, given, seed=3)
    check_folds(found, given)
    assert (found.kind, len(found.folds)) == ("stratified", folds)
    assert sum(len(fold.tested) for fold in found.folds) == len(given)
    for class_id in counts:
        held_out = [int(np.count_nonzero(fold.tested.class_ids == class_id)) for fold in found.folds]
        assert max(held_out) - min(held_out) <= 1


def test_folds_come_from_the_seed() -> None:
    given = labels({1: 300, 2: 57})
    one, again, other = (positions(stratified_folds(given, given, seed).folds[0].tested) for seed in (0, 0, 1))
    assert one == again != other


def test_labels_that_are_not_learned_from_can_be_tested_too() -> None:
    given = labels({1: 900, 2: 300})
    learned = spread_sample(given, {1: 100, 2: 100}, seed=0)
    folds = stratified_folds(learned, given, seed=0)
    check_folds(folds, given)
    assert sum(len(fold.tested) for fold in folds.folds) == len(given)
    assert all(set(positions(fold.learned)) <= set(positions(learned)) for fold in folds.folds)


@pytest.mark.parametrize("footprint", [1, 5, 11])
def test_no_window_of_a_held_out_block_shares_a_pixel_with_one_learned_from(footprint: int) -> None:
    given = labels({1: 900, 2: 300, 3: 40})
    folds = block_folds(given, given, 0, WIDTH, footprint)
    check_folds(folds, given)
    assert (folds.kind, len(folds.folds)) == ("blocks", 5)
    assert folds.describe() == "by cross-validation over the labels, 5 folds of whole blocks"
    for fold in folds.folds:
        down = np.abs(fold.tested.rows[:, None] - fold.learned.rows)
        across = np.abs(fold.tested.cols[:, None] - fold.learned.cols)
        assert np.maximum(down, across).min() >= footprint
        held_out, kept = (
            set(zip((one.rows // (2 * footprint)).tolist(), (one.cols // (2 * footprint)).tolist(), strict=True))
            for one in (fold.tested, fold.learned)
        )
        assert not held_out & kept
    assert {3} <= {class_id for fold in folds.folds for class_id in fold.tested.class_ids.tolist()}


def test_labels_in_one_block_alone_cannot_be_held_out_by_blocks() -> None:
    corner = Pixels(np.array([0, 1, 2, 3]), np.array([0, 1, 2, 3]), np.array([1, 2, 1, 2]))
    with pytest.raises(BadInput, match=r"no class has labels in two blocks of 10 x 10 pixels.*--protocol random"):
        block_folds(corner, corner, 0, WIDTH, 5)


def test_quotas_leave_small_classes_whole_and_share_the_rest() -> None:
    assert balanced_quotas({1: 10_000, 2: 30, 3: 4_000}, 5_000) == {1: 2_485, 2: 30, 3: 2_485}
    assert balanced_quotas({1: 10, 2: 3}, 5_000) == {1: 10, 2: 3}
    assert proportional_quotas({1: 90_000, 2: 9_950, 3: 50}, 10_000, 100) == {1: 9_000, 2: 995, 3: 50}
    assert proportional_quotas({1: 10, 2: 3}, 10_000, 100) == {1: 10, 2: 3}


def test_a_sample_lies_where_the_class_lies_and_comes_from_the_seed() -> None:
    given = labels({1: 6_000, 2: 500})
    chosen, again, other = (spread_sample(given, {1: 400, 2: 500}, seed) for seed in (0, 0, 1))
    assert np.bincount(chosen.class_ids).tolist() == [0, 400, 500]
    assert set(positions(chosen)) <= set(positions(given))
    assert positions(chosen) == positions(again) != positions(other)
    # at random, a square of 32 x 32 pixels would have some 40 of 400, give or take 6
    of_class = chosen.class_ids == 1
    squares = np.bincount(chosen.rows[of_class] // 32 * 4 + chosen.cols[of_class] // 32, minlength=16)
    given_squares = np.bincount((given.rows // 32 * 4 + given.cols // 32)[given.class_ids == 1], minlength=16)
    assert np.abs(squares - given_squares * 400 / 6_000).max() < 1


def validated(true: list[list[int]], predicted: list[list[int]], kind: str, weights: list[int]) -> CrossValidation:
    """Cross-validation of classes 1 and 3 with these held-out labels and predictions by fold."""
    empty = np.zeros(0, dtype=np.int64)
    folds = [
        Fold(Pixels(empty, empty, empty), Pixels(np.arange(len(one)), np.arange(len(one)), np.array(one)))
        for one in true
    ]
    return CrossValidation(
        Folds(kind, tuple(folds)),  # type: ignore[arg-type]
        (1, 3),
        tuple(np.array(one) for one in predicted),
        tuple(np.full(len(one), 0.75, np.float32) for one in predicted),
        np.array(weights),
    )


def test_figures_are_over_all_folds_together() -> None:
    true = [[1, 1, 3], [1, 3, 3]]
    predicted = [[1, 3, 3], [1, 3, 1]]
    found = validated(true, predicted, "stratified", [3, 3])
    flat_true, flat_predicted = np.concatenate(true), np.concatenate(predicted)
    assert found.oa.mean == pytest.approx(100 * 4 / 6)
    assert found.aa.mean == pytest.approx(100 * balanced_accuracy_score(flat_true, flat_predicted))
    assert found.kappa.mean == pytest.approx(cohen_kappa_score(flat_true, flat_predicted))
    assert found.oa.per_seed == pytest.approx((200 / 3, 200 / 3))
    assert found.right.tolist() == [True, False, True, True, True, False]
    assert found.reliability.expected_calibration_error == pytest.approx(75 - 400 / 6)


def test_two_right_of_two_are_no_certainty() -> None:
    found = validated([[1], [1], [3], [3]], [[1], [1], [3], [3]], "leave-one-out", [2, 2])
    assert (found.oa.mean, found.aa.mean, found.kappa.mean) == (100.0, 100.0, 1.0)
    wilson = stats.binomtest(4, 4).proportion_ci(method="wilson")
    assert found.oa.ci95 == pytest.approx((100 * wilson.low, 100.0))
    wilson = stats.binomtest(2, 2).proportion_ci(method="wilson")
    assert found.per_class[0].ci95 == pytest.approx((100 * wilson.low, 100.0))
    assert found.aa.ci95 is not None
    assert 100 * wilson.low < found.aa.ci95[0] < 90
    assert found.kappa.ci95 is not None
    assert -1 <= found.kappa.ci95[0] < 0.5
    assert found.oa.per_seed == ()


def test_folds_that_differ_widen_the_interval() -> None:
    equal = validated([[1] * 10] * 4, [[1] * 5 + [3] * 5] * 4, "blocks", [40, 0])
    apart = validated([[1] * 10] * 4, [[1] * 10, [1] * 10, [3] * 10, [3] * 10], "blocks", [40, 0])
    for found in (equal, apart):
        assert found.oa.mean == 50.0
        assert found.oa.ci95 is not None
    wilson = stats.binomtest(20, 40).proportion_ci(method="wilson")
    assert equal.oa.ci95 == pytest.approx((100 * wilson.low, 100 * wilson.high))
    assert apart.oa.ci95 is not None
    assert apart.oa.ci95[0] < 20 < 80 < apart.oa.ci95[1]


def test_a_class_of_which_fewer_were_drawn_counts_as_often_as_it_was_given() -> None:
    # all of class 3 right, 1 of 2 of class 1: half of 900, all of 100
    found = validated([[1, 3], [1, 3]], [[1, 3], [3, 3]], "stratified", [900, 100])
    assert found.oa.mean == pytest.approx(55.0)
    assert found.aa.mean == pytest.approx(75.0)


def test_a_class_that_was_never_held_out_has_no_figure() -> None:
    found = validated([[1], [1]], [[1], [1]], "leave-one-out", [2, 1])
    assert found.per_class[1].mean is None
    assert found.aa.mean == 100.0
