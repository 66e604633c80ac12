"""What cross-validation says of a classifier that learned from every label.

Shapes: C classes.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from diffclip_dist.fewshot.calibration import Reliability
from diffclip_dist.fewshot.episodes import Pixels
from diffclip_dist.fewshot.intervals import Interval, effective_count, mean_share_interval, share_interval
from diffclip_dist.fewshot.label_folds import Folds
from diffclip_dist.fewshot.metrics import KAPPA, Scores, Summary, score, score_confusion


@dataclass(frozen=True)
class CrossValidation:
    """Labels that were held out, and what classifiers that did not learn from them made of them.

    Attributes:
        folds: which labels were held out together.
        class_ids: of the classes, ascending.
        predicted: class id of each held-out label, fold by fold.
        confidence: probability of that class, 0 to 1, fold by fold.
        labels_C: labels of each class that the held-out ones stand for.
    """

    folds: Folds
    class_ids: tuple[int, ...]
    predicted: tuple[npt.NDArray[np.int64], ...]
    confidence: tuple[npt.NDArray[np.float32], ...]
    labels_C: npt.NDArray[np.int64]

    @cached_property
    def tested(self) -> Pixels:
        """The held-out labels of all folds."""
        tested = [fold.tested for fold in self.folds.folds]
        return Pixels(
            *(np.concatenate([getattr(one, name) for one in tested]) for name in ("rows", "cols", "class_ids"))
        )

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Of each held-out label of all folds, whether its class was found."""
        right: npt.NDArray[np.bool_] = self.tested.class_ids == np.concatenate(self.predicted)
        return right

    @property
    def reliability(self) -> Reliability:
        """How confidence and accuracy go together over the held-out labels."""
        return Reliability.of(np.concatenate(self.confidence), self.right)

    @cached_property
    def by_fold(self) -> npt.NDArray[np.int64]:
        """Held-out labels (fold, true class, predicted class)."""
        return np.stack([one.confusion for one in self._of_folds])

    @cached_property
    def scores(self) -> Scores:
        """Over all folds; where labels were drawn for the test, each class counts as often as it was given."""
        confusion = self.by_fold.sum(axis=0)
        weights = self.labels_C / np.maximum(confusion.sum(axis=1), 1)
        return score_confusion(confusion * weights[:, None])

    @cached_property
    def _of_folds(self) -> tuple[Scores, ...]:
        return tuple(
            score(
                np.searchsorted(self.class_ids, fold.tested.class_ids),
                np.searchsorted(self.class_ids, predicted),
                len(self.class_ids),
            )
            for fold, predicted in zip(self.folds.folds, self.predicted, strict=True)
        )

    @cached_property
    def _independent(self) -> float:
        """How many independent labels a held-out label is worth, at most 1."""
        counts = self.by_fold.sum(axis=(1, 2))
        if len(counts) < 2:
            return 1.0
        right = np.trace(self.by_fold, axis1=1, axis2=2)
        return effective_count(right.tolist(), counts.tolist()) / float(counts.sum())

    @property
    def oa(self) -> Summary:
        """Overall accuracy in percent, with Wilson's interval."""
        low, high = self._oa_interval
        return self._summary(self.scores.oa, (100 * low, 100 * high), [one.oa for one in self._of_folds])

    @property
    def aa(self) -> Summary:
        """Average accuracy over the tested classes in percent."""
        counts = self.by_fold.sum(axis=(0, 2))
        shares = (self.scores.per_class[counts > 0] / 100).tolist()
        low, high = mean_share_interval(shares, (self._independent * counts[counts > 0]).tolist())
        return self._summary(self.scores.aa, (100 * low, 100 * high), [one.aa for one in self._of_folds])

    @property
    def kappa(self) -> Summary:
        """Cohen's kappa, -1 to 1; its interval is that of the overall accuracy, with chance agreement as found."""
        confusion = self.scores.confusion
        chance = float(confusion.sum(axis=1) @ confusion.sum(axis=0)) / float(confusion.sum()) ** 2
        # chance is 1 where there is one class alone, all of it right
        ends = [1.0 if chance == 1.0 else (end - chance) / (1 - chance) for end in self._oa_interval]
        low, high = (min(max(end, KAPPA[0]), KAPPA[1]) for end in ends)
        return self._summary(self.scores.kappa, (low, high), [one.kappa for one in self._of_folds])

    @property
    def per_class(self) -> tuple[Summary, ...]:
        """Accuracy of each class in percent, with Wilson's interval; without a mean where none was held out."""
        counts = self.by_fold.sum(axis=(0, 2))
        found = []
        for place, (accuracy, count) in enumerate(zip(self.scores.per_class.tolist(), counts.tolist(), strict=True)):
            if count == 0:
                found.append(Summary(None, None, None, ()))
                continue
            low, high = share_interval(accuracy / 100, self._independent * count)
            of_folds = [float(one.per_class[place]) for one in self._of_folds]
            found.append(self._summary(accuracy, (100 * low, 100 * high), of_folds))
        return tuple(found)

    @property
    def _oa_interval(self) -> Interval:
        count = float(self.by_fold.sum())
        return share_interval(self.scores.oa / 100, self._independent * count)

    def _summary(self, mean: float, ci95: Interval, of_folds: list[float]) -> Summary:
        """A figure over all folds; its values by fold mean nothing where a fold is one label."""
        if self.folds.kind in ("leave-one-out", "official"):
            return Summary(mean, None, ci95, ())
        listed = tuple(None if np.isnan(value) else value for value in of_folds)
        known = [value for value in listed if value is not None]
        return Summary(mean, float(np.std(known, ddof=1)) if len(known) > 1 else None, ci95, listed)
