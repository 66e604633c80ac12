"""Figures against scikit-learn, SciPy and hand calculation."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score, cohen_kappa_score, confusion_matrix

from diffclip_dist.fewshot.metrics import score, summarise


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


def test_the_interval_is_students() -> None:
    values = np.random.default_rng(0).normal(50, 3, 10)
    found = summarise(values.tolist())
    expected = stats.t.interval(0.95, 9, loc=values.mean(), scale=stats.sem(values))
    assert found.ci95 == pytest.approx(expected)
    assert found.std == pytest.approx(values.std(ddof=1))


def test_what_one_seed_cannot_say_is_left_out() -> None:
    assert summarise([50.0]).ci95 is None
    assert summarise([50.0]).std is None
    assert summarise([np.nan, 50.0]).per_seed == (None, 50.0)
    assert summarise([np.nan]).mean is None
