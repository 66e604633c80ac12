"""What a study says of class names: what they were taken for, how right they were, and how much they decided."""

from collections.abc import Sequence
from typing import Any, Final

import torch

from diffclip_dist.fewshot.fitted_classifier import FittedClassifier
from diffclip_dist.fewshot.metrics import PERCENT, summarise
from diffclip_dist.fewshot.names_prior import NamesPrior
from diffclip_dist.study.experiment import Run
from diffclip_dist.words.name_matching import NameMatch

# Shots of a class over all draws that its name may be called wrong by, and the share of them that it is right for
LEAST_CONTRADICTING: Final = 3
LEAST_RIGHT: Final = 0.2


def matched_names(matches: Sequence[NameMatch]) -> dict[str, dict[str, Any]]:
    """Class name to the nearest captions of materials with their cosines, and whether that is near enough."""
    return {
        match.name: {
            "known": match.known,
            "nearest": [
                {"material": near.material, "caption": near.caption, "similarity": near.similarity}
                for near in match.nearest
            ],
        }
        for match in matches
    }


def names_of_shots(runs: Sequence[Run]) -> dict[str, Any] | None:
    """What `names_of_classifiers` says of the runs of one count of shots.

    With ``changed``, in percent: of tested pixels those whose class is another by the shots alone. Without shots it is
    None, for names decide everything.
    """
    found = names_of_classifiers([run.fitted for run in runs])
    changed = [run.changed_percent for run in runs if run.changed_percent is not None]
    return found if found is None else {**found, "changed": _summary(changed) if changed else None}


def names_of_classifiers(fitted: Sequence[FittedClassifier]) -> dict[str, Any] | None:
    """How far names act in classifiers of one count of shots; None where they do not.

    ``weight`` of the log-prior, ``trust`` from 0 to 1 of each, and ``right_on_shots`` in percent: the shots whose class
    the names alone say; None without shots.
    """
    priors = [one.prior for one in fitted if one.prior is not None]
    if not priors:
        return None
    right = [100.0 * float(one.right_C.sum() / one.count_C.sum()) for one in priors if one.count_C.any()]
    return {
        "weight": priors[0].weight,
        "trust": [prior.trust for prior in priors],
        "right_on_shots": _summary(right) if right else None,
    }


def doubtful_names(matches: Sequence[NameMatch], fitted: Sequence[FittedClassifier]) -> list[str]:
    """A line for each class whose name is far from every caption, or which the shots contradict.

    Args:
        matches: of the class names.
        fitted: the classifiers of all draws.
    """
    priors = [one.prior for one in fitted if one.prior is not None and one.prior.count_C.any()]
    return [line for place, match in enumerate(matches) if (line := _doubt(place, match, matches, priors))]


def _doubt(place: int, match: NameMatch, matches: Sequence[NameMatch], priors: Sequence[NamesPrior]) -> str | None:
    if not match.known:
        nearest = match.nearest[0]
        return (
            f"{match.name}: its name is far from every caption (the nearest is {nearest.caption}, cosine "
            f"{nearest.similarity:.2f}), so the name tells nothing"
        )
    count, right = (int(sum(float(of_classes[place]) for of_classes in each)) for each in (
        [prior.count_C for prior in priors], [prior.right_C for prior in priors]
    ))  # fmt: skip
    if count < LEAST_CONTRADICTING or right >= LEAST_RIGHT * count:
        return None
    said_C = torch.stack([prior.said_CC[place] for prior in priors]).mean(dim=0)
    said_C[place] = 0.0
    other = matches[int(said_C.argmax())].name
    return (
        f"{match.name}: shots contradict its name, which is right for {right} of {count}, most often taken for {other}"
    )


def _summary(values: list[float]) -> dict[str, Any]:
    found = summarise(values, PERCENT)
    return {"mean": found.mean, "ci95": found.ci95, "per_seed": list(found.per_seed)}
