"""Figures against scikit-learn, SciPy and hand calculation."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score, cohen_kappa_score, confusion_matrix

from diffclip_dist.fewshot.metrics import KAPPA, PERCENT, score, summarise


@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    true = random.integers(0, 6, 500)
    predicted = np.where(random.random(500) < 0.6, true, random.integers(0, 6, 500))
    found = score(true, predicted, 6)
    assert found.oa == pytest.approx(100 * accuracy_score(true, predicted))
    assert found.aa == pytest.approx(100 * balanced_accuracy_score(true, predicted))
    assert found.kappa == pytest.approx(cohen_kappa_score(true, predicted))
    assert np.array_equal(found.confusion, confusion_matrix(true, predicted))


def test_scores_by_hand() -> None:
    found = score(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 2)
    assert (found.oa, found.aa) == (75.0, pytest.approx((200 / 3 + 100) / 2))
    # chance agreement: 3/4 * 2/4 + 1/4 * 2/4 = 1/2
    assert found.kappa == pytest.approx(0.5)


def test_a_class_without_query_pixels_does_not_count_in_the_average() -> None:
    found = score(np.array([0, 0, 2]), np.array([0, 1, 2]), 3)
    assert np.isnan(found.per_class[1])
    assert found.aa == 75.0


def test_one_class_all_right() -> None:
    assert score(np.zeros(4, np.int64), np.zeros(4, np.int64), 1).kappa == 1.0


def test_the_interval_is_students_far_from_the_limits() -> None:
    values = np.random.default_rng(0).normal(50, 3, 10)
    found = summarise(values.tolist(), PERCENT)
    expected = stats.t.interval(0.95, 9, loc=values.mean(), scale=stats.sem(values))
    assert found.ci95 == pytest.approx(expected, abs=0.05)
    assert found.std == pytest.approx(values.std(ddof=1))


def test_the_interval_by_hand() -> None:
    # two seeds at 60 and 80 %: standard error 10 points, one degree of freedom
    found = summarise([60.0, 80.0], PERCENT)
    half = stats.t.ppf(0.975, 1) * 0.1 / (0.7 * 0.3)
    middle = np.log(0.7 / 0.3)
    assert found.ci95 == pytest.approx([100 / (1 + np.exp(half - middle)), 100 / (1 + np.exp(-half - middle))])


@pytest.mark.parametrize(
    "values", [[50.0, 59.8], [99.0, 100.0], [0.0, 100.0], [*[100.0] * 9, 0.0], [0.0, 0.4], [97.0, 99.5, 100.0]]
)
def test_no_interval_goes_beyond_0_and_100_and_each_holds_its_mean(values: list[float]) -> None:
    found = summarise(values, PERCENT)
    assert found.ci95 is not None
    assert 0 <= found.ci95[0] < np.mean(values) < found.ci95[1] <= 100


def test_an_interval_of_kappa_stays_within_its_own_range() -> None:
    found = summarise([-0.9, 0.95, 0.99], KAPPA)
    assert found.ci95 is not None
    assert -1 <= found.ci95[0] < 0 < found.ci95[1] <= 1


@pytest.mark.parametrize(("seeds", "centre"), [(2, 0.9), (10, 0.9), (10, 0.5)])
def test_the_interval_holds_the_truth_as_often_as_it_says(seeds: int, centre: float) -> None:
    random = np.random.default_rng(1)
    held = 0
    for _ in range(1000):
        drawn = summarise((100 * random.beta(20 * centre, 20 * (1 - centre), seeds)).tolist(), PERCENT)
        assert drawn.ci95 is not None
        held += drawn.ci95[0] <= 100 * centre <= drawn.ci95[1]
    assert 0.92 <= held / 1000 <= 0.98


def test_seeds_that_agree_leave_no_interval_around_a_limit() -> None:
    assert summarise([100.0, 100.0, 100.0], PERCENT).ci95 == (100.0, 100.0)


def test_what_one_seed_cannot_say_is_left_out() -> None:
    assert summarise([50.0], PERCENT).ci95 is None
    assert summarise([50.0], PERCENT).std is None
    assert summarise([np.nan, 50.0], PERCENT).per_seed == (None, 50.0)
    assert summarise([np.nan], PERCENT).mean is None
