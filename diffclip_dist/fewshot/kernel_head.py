"""The kernel head: kernel ridge regression from a pixel's features to the text of its class, in closed form.

Each feature set has three regressions, with a narrow, a medium and a wide kernel. Their weights come from leave-one-out
predictions on the labelled pixels, and from how far the classes that a feature set alone gives unlabelled pixels agree
with those that the others give. With a shot a class nothing can be left out, and agreement alone decides: errors of
different descriptions of a pixel differ more than what they get right.

Shapes: S feature sets, G kernels (for each feature set the narrow one first, then the wider ones), P pixels, Q support
pixels, K feature width, E text width, C classes.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from diffclip_dist.feature_extraction.extractor import FeatureExtractor
from diffclip_dist.fewshot.class_priors import (
    SCORE_SHARPNESS,
    Discriminant,
    class_discriminant,
    prior_scores,
    score_trust,
)
from diffclip_dist.fewshot.label_sample import balanced_quotas

Beside = TypeVar("Beside", Tensor, Tensor | None)

# All chosen on generated scenes, at 1 to 20 shots
# In standard deviations of the scene's features; each is twice the one before
KERNEL_WIDTHS: Final = (1.0, 2.0, 4.0)
RIDGE: Final = 0.01
# Weight of the held-out log-likelihoods: shots are few and not independent
HELD_OUT_TRUST: Final = 0.3
# Prior log-odds of a feature set for each e-fold of the share of pixels to which the others give the same class
AGREEMENT_TRUST: Final = 5.0
LEAST_AGREEMENT: Final = 0.05  # added to that share
LEAST_WEIGHT: Final = 0.01  # of a kernel; those below are left out, which makes maps faster
# Of the estimates from another scene: of its class priors beside equal ones, and of its class means beside the own ones
OTHER_SCENE_TRUST: Final = 0.5
# Without shots: class names tell a scene's class means about as well as so many shots a class
NAMES_AS_SHOTS: Final = 3.0
# Shots that weigh the kernels: more take long, and hardly change which kernel is best
MOST_WEIGHED: Final = 2_000
MOST_PIXELS: Final = 20_000  # of a scene, for class priors and class means
AGREEMENT_PIXELS: Final = 2_000  # of a scene, that feature sets agree on or not


class KernelHead(nn.Module):
    """Gaussian kernels between a pixel's features and those of each support pixel, then a projection to the text width.

    Attributes:
        extractor: of the features.
        support_SQK: features of the support.
        variance_S: mean squared distance of the scene's features from their mean; the unit of the kernels' widths.
        weight_G: of each kernel, summing to 1.
        dual_coef_GQE: dual coefficients of the regression.
        direction_KE: linear term in the first feature set, from the class means.
        metric_direction_KE: the same in the last feature set, the components of the band metric; None in classifiers
            that were saved before they were a feature set, and of a single feature set.
        offset_E: constant term, from class priors, class means and the classes without shots.
        prior_C: what class priors add to the scores, a part of `offset_E`; None where it is unknown, in classifiers of
            older formats.
        seen_C: bool, which classes have shots; None like `prior_C`.
    """

    support_SQK: Tensor
    variance_S: Tensor
    weight_G: Tensor
    dual_coef_GQE: Tensor
    direction_KE: Tensor
    offset_E: Tensor
    prior_C: Tensor | None
    seen_C: Tensor | None
    metric_direction_KE: Tensor | None

    def __init__(
        self,
        extractor: FeatureExtractor,
        support_SQK: Tensor,
        variance_S: Tensor,
        weight_G: Tensor,
        dual_coef_GQE: Tensor,
        direction_KE: Tensor,
        offset_E: Tensor,
        prior_C: Tensor | None,
        seen_C: Tensor | None,
        metric_direction_KE: Tensor | None,
    ) -> None:
        super().__init__()
        self.extractor = extractor
        self.register_buffer("support_SQK", support_SQK)
        self.register_buffer("variance_S", variance_S)
        self.register_buffer("weight_G", weight_G)
        self.register_buffer("dual_coef_GQE", dual_coef_GQE)
        self.register_buffer("direction_KE", direction_KE)
        self.register_buffer("offset_E", offset_E)
        self.register_buffer("prior_C", prior_C)
        self.register_buffer("seen_C", seen_C)
        self.register_buffer("metric_direction_KE", metric_direction_KE)

    @classmethod
    def fit(
        cls, extractor: FeatureExtractor, scene_SPK: Tensor, support_SQK: Tensor, targets_Q: Tensor, text_CE: Tensor
    ) -> "KernelHead":
        """Solves for the support in closed form; each class has the same weight, however many pixels it has.

        Args:
            extractor: of the features.
            scene_SPK: features of the scene's pixels, at least one.
            support_SQK: features of the labelled pixels.
            targets_Q: class index of each.
            text_CE: unit class vectors.
        """
        variance_S = (scene_SPK - scene_SPK.mean(dim=1, keepdim=True)).square().sum(dim=2).mean(dim=1).clamp_min(1e-12)
        member_QC = _members(targets_Q, len(text_CE))
        count_C = member_QC.sum(dim=0)
        ridge_Q = _ridge(targets_Q, count_C)
        level_C = _level(count_C > 0)
        weighed_Q = _weighed(targets_Q)
        step = -(-scene_SPK.shape[1] // AGREEMENT_PIXELS)
        weight_G = _weights(
            support_SQK[:, weighed_Q], targets_Q[weighed_Q], len(text_CE), variance_S, scene_SPK[:, ::step]
        )
        dual_coef_GQC = member_QC.new_zeros(len(weight_G), *member_QC.shape)
        # one after the other: several threads factorise a batch, and MKL then deadlocks
        for number, kernel_QQ in _kernels(support_SQK, support_SQK, variance_S, weight_G):
            dual_coef_GQC[number] = torch.cholesky_solve(member_QC, _factor(kernel_QQ, ridge_Q))
        from_text_EC = torch.linalg.pinv(text_CE.double())
        dual_coef_GQE = (dual_coef_GQC @ from_text_EC.T).float()
        direction_KE = support_SQK.new_zeros(support_SQK.shape[2], len(from_text_EC))
        metric_direction_KE = torch.zeros_like(direction_KE) if len(support_SQK) > 1 else None
        offset_E = (from_text_EC @ level_C).float()
        return cls(
            extractor, support_SQK, variance_S, weight_G, dual_coef_GQE, direction_KE, offset_E,
            text_CE.new_zeros(len(text_CE)), count_C > 0, metric_direction_KE,
        )  # fmt: skip

    def adapted(
        self,
        scene_SPK: Tensor,
        text_CE: Tensor,
        *,
        class_priors: bool,
        class_means: bool,
        added_PC: Tensor | None = None,
    ) -> "KernelHead":
        """A head as `fit` gives it, with class priors and class means estimated from its scene's unlabelled pixels.

        Args:
            scene_SPK: features of the scene's pixels, at least one.
            text_CE: unit class vectors.
            class_priors: whether a class's estimated frequency adds to its scores.
            class_means: whether a pixel's distance from the estimated class means adds to its scores.
            added_PC: what class names add to the log-likelihoods of the same pixels; None adds nothing.
        """
        assert self.seen_C is not None
        sampled_SPK, added_PC = _sampled(scene_SPK, added_PC)
        score_PC = self(sampled_SPK, text_CE)
        if added_PC is not None:
            score_PC = score_PC + added_PC / SCORE_SHARPNESS
        shots = self.support_SQK.shape[1] / len(text_CE)
        trust = score_trust(score_PC, self.seen_C)
        prior_C = trust * prior_scores(score_PC, shots) if class_priors else text_CE.new_zeros(len(text_CE))
        if not class_means:
            return self._with_linear_terms([], self.offset_E + _of_text(prior_C, text_CE), prior_C, text_CE)
        found = self._class_means(sampled_SPK, score_PC + prior_C, shots, trust)
        offset_C = sum((means.offset_C for means in found), prior_C)
        directions = [means.direction_KC for means in found]
        return self._with_linear_terms(directions, self.offset_E + _of_text(offset_C, text_CE), prior_C, text_CE)

    def readapted(
        self,
        scene_SPK: Tensor,
        text_CE: Tensor,
        *,
        class_priors: bool,
        class_means: bool,
        added_PC: Tensor | None = None,
    ) -> "KernelHead":
        """A head that was adapted to its own scene, for another scene, by that scene's unlabelled pixels.

        Class priors are half the other scene's and half equal: smoothing draws pixels to frequent classes already, and
        a scene that differs is estimated worse. Class means are half those of its own scene, near which the shots lie,
        and half the other scene's, whose estimate starts from the former. All was chosen on generated scenes;
        `benchmarks/another_scene.py` measures it. An estimate that starts anew loses against keeping all.

        Args:
            scene_SPK: features of the other scene's pixels, at least one.
            text_CE: unit class vectors.
            class_priors: whether class priors were estimated.
            class_means: whether class means were estimated.
            added_PC: what class names add to the log-likelihoods of the same pixels; None adds nothing.
        """
        assert self.prior_C is not None
        assert self.seen_C is not None
        sampled_SPK, added_PC = _sampled(scene_SPK, added_PC)
        shots = self.support_SQK.shape[1] / len(text_CE)
        level_C = _level(self.seen_C).float()
        directions = [direction_KE @ text_CE.T for _, direction_KE in self._linear_terms]
        offset_C = text_CE @ self.offset_E - self.prior_C - level_C
        own_PC = offset_C + sum(
            sampled_SPK[number] @ direction_KC
            for (number, _), direction_KC in zip(self._linear_terms, directions, strict=True)
        )
        score_PC = self(sampled_SPK, text_CE) - self.prior_C
        if added_PC is not None:
            score_PC = score_PC + added_PC / SCORE_SHARPNESS
        trust = score_trust(score_PC - own_PC, self.seen_C)
        prior_C = OTHER_SCENE_TRUST * trust * prior_scores(score_PC, shots) if class_priors else self.prior_C
        if class_means:
            found = self._class_means(sampled_SPK, score_PC - own_PC + prior_C, shots, trust, own_PC)
            directions = [
                torch.lerp(own_KC, means.direction_KC, OTHER_SCENE_TRUST)
                for own_KC, means in zip(directions, found, strict=True)
            ]
            found_C = sum((means.offset_C for means in found), torch.zeros_like(offset_C))
            offset_C = torch.lerp(offset_C, found_C, OTHER_SCENE_TRUST)
        return self._with_linear_terms(directions, _of_text(level_C + prior_C + offset_C, text_CE), prior_C, text_CE)

    def adapted_to_names(self, scene_SPK: Tensor, text_CE: Tensor, log_PC: Tensor, known_C: Tensor) -> "KernelHead":
        """A head without shots, with class means estimated from a scene's pixels by what class names tell of them.

        Names tell each pixel by itself. Classes as Gaussians of one covariance bring in which pixels of the scene are
        alike. The weight of the class means is the one that they have with `NAMES_AS_SHOTS`.

        Args:
            scene_SPK: features of the scene's pixels, at least one.
            text_CE: unit class vectors.
            log_PC: log P(class | pixel) of the same pixels by the names.
            known_C: bool, whose names tell anything.
        """
        assert not self.support_SQK.shape[1]
        sampled_SPK, log_PC = _sampled(scene_SPK, log_PC)
        means = class_discriminant(sampled_SPK[0], log_PC / SCORE_SHARPNESS, known_C, NAMES_AS_SHOTS, trust=1.0)
        directions = [means.direction_KC, *(torch.zeros_like(means.direction_KC) for _ in self._linear_terms[1:])]
        no_priors_C = text_CE.new_zeros(len(text_CE))
        return self._with_linear_terms(directions, _of_text(means.offset_C, text_CE), no_priors_C, text_CE)

    def with_more_classes(self, more: int) -> "KernelHead":
        """A head that has more classes at the end, without shots.

        Class means that names alone told are left out: they tell the classes of before apart, and no other.
        """
        prior_C, seen_C = (
            None if of_classes is None else torch.nn.functional.pad(of_classes, (0, more))
            for of_classes in (self.prior_C, self.seen_C)
        )
        direction_KE, offset_E, metric_direction_KE = self.direction_KE, self.offset_E, self.metric_direction_KE
        if not self.support_SQK.shape[1]:
            direction_KE, offset_E = torch.zeros_like(direction_KE), torch.zeros_like(offset_E)
            metric_direction_KE = None if metric_direction_KE is None else torch.zeros_like(metric_direction_KE)
        return KernelHead(
            self.extractor, self.support_SQK, self.variance_S, self.weight_G, self.dual_coef_GQE, direction_KE,
            offset_E, prior_C, seen_C, metric_direction_KE,
        )  # fmt: skip

    @property
    def _linear_terms(self) -> list[tuple[int, Tensor]]:
        """The feature sets with a linear term, by number, and the term (K, E)."""
        first = (0, self.direction_KE)
        last = len(self.variance_S) - 1
        return [first] if self.metric_direction_KE is None else [first, (last, self.metric_direction_KE)]

    def _class_means(
        self, scene_SPK: Tensor, score_PC: Tensor, shots: float, trust: float, start_PC: Tensor | None = None
    ) -> list[Discriminant]:
        """The estimates in each feature set with a linear term; they share the weight of one."""
        assert self.seen_C is not None
        terms = self._linear_terms
        return [
            class_discriminant(scene_SPK[number], score_PC, self.seen_C, shots, trust / len(terms), start_PC)
            for number, _ in terms
        ]

    def _with_linear_terms(
        self, directions: Sequence[Tensor], offset_E: Tensor, prior_C: Tensor, text_CE: Tensor
    ) -> "KernelHead":
        """The same with other linear terms (K, C), of as many feature sets or of none."""
        terms = [_of_text(direction_KC, text_CE) for direction_KC in directions]
        if not terms:
            terms = [torch.zeros_like(direction_KE) for _, direction_KE in self._linear_terms]
        return KernelHead(
            self.extractor, self.support_SQK, self.variance_S, self.weight_G, self.dual_coef_GQE, terms[0], offset_E,
            prior_C, self.seen_C, terms[1] if len(terms) > 1 else None,
        )  # fmt: skip

    def forward(self, features_SPK: Tensor, text_CE: Tensor) -> Tensor:
        """Scores (P, C), projections onto unit class vectors: about 1 for a pixel's own class, about 0 for others."""
        scores_PC = (self.offset_E @ text_CE.T).expand(features_SPK.shape[1], -1).clone()
        for number, direction_KE in self._linear_terms:
            scores_PC.addmm_(features_SPK[number], direction_KE @ text_CE.T)
        weights_SW = self.weight_G.view(len(self.variance_S), len(KERNEL_WIDTHS)).tolist()
        for number, weights in enumerate(weights_SW):
            if not any(weights):
                continue
            kernel_PQ = _widest_kernel(features_SPK[number], self.support_SQK[number], self.variance_S[number])
            for place in range(len(KERNEL_WIDTHS) - 1, -1, -1):
                kernel = number * len(KERNEL_WIDTHS) + place
                if weights[place]:
                    scores_PC.addmm_(kernel_PQ, self.weight_G[kernel] * (self.dual_coef_GQE[kernel] @ text_CE.T))
                if place and any(weights[:place]):
                    # half the width is a fourth of the squared width, hence the fourth power
                    kernel_PQ = kernel_PQ.square_().square_()
        return scores_PC

    def logits(self, features_SPK: Tensor, text_CE: Tensor) -> Tensor:
        """Log-likelihoods of the classes (P, C), up to a constant a pixel: class priors are estimated by the same."""
        scores_PC: Tensor = self(features_SPK, text_CE)
        return SCORE_SHARPNESS * scores_PC

    def held_out_logits(self, targets_Q: Tensor, text_CE: Tensor) -> Tensor:
        """Logits (Q, C) of the support pixels, each by the head that the other shots alone would give.

        Weights of the kernels, class priors and class means stay as they are: all shots chose or started them.

        Args:
            targets_Q: class index of each support pixel.
            text_CE: unit class vectors.
        """
        member_QC = _members(targets_Q, len(text_CE))
        ridge_Q = _ridge(targets_Q, member_QC.sum(dim=0))
        held_out_QC = torch.zeros_like(member_QC)
        for number, kernel_QQ in _kernels(self.support_SQK, self.support_SQK, self.variance_S, self.weight_G):
            held_out_QC += self.weight_G[number] * _solved(kernel_QQ, member_QC, ridge_Q).held_out_QC
        from_text_EC = torch.linalg.pinv(text_CE.double())
        added_QE = self.offset_E + sum(
            self.support_SQK[number] @ direction_KE for number, direction_KE in self._linear_terms
        )
        held_out_QE = (held_out_QC @ from_text_EC.T).float() + added_QE
        logits_QC: Tensor = SCORE_SHARPNESS * held_out_QE @ text_CE.T
        return logits_QC


def _sampled(scene_SPK: Tensor, beside_PC: Beside) -> tuple[Tensor, Beside]:
    """At most `MOST_PIXELS` of a scene's pixels, evenly spread: their features, and what is known of them beside."""
    step = -(-scene_SPK.shape[1] // MOST_PIXELS)
    return scene_SPK[:, ::step], None if beside_PC is None else beside_PC[::step]


def _kernels(one_SPK: Tensor, other_SQK: Tensor, variance_S: Tensor, weight_G: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each kernel with a weight: its number, and the Gaussian (P, Q) of the distances between features."""
    weights_SW = weight_G.view(len(variance_S), len(KERNEL_WIDTHS)).tolist()
    for number_of_set, weights in enumerate(weights_SW):
        if not any(weights):
            continue
        distance_PQ = squared_distances(one_SPK[number_of_set], other_SQK[number_of_set])
        for number, (width, weight) in enumerate(
            zip(KERNEL_WIDTHS, weights, strict=True), number_of_set * len(KERNEL_WIDTHS)
        ):
            if weight:
                yield number, torch.exp(-distance_PQ / (2 * width**2 * variance_S[number_of_set]))


def squared_distances(one_PK: Tensor, other_QK: Tensor) -> Tensor:
    """Squared distances (P, Q) of features.

    On GPUs by a matrix product, which is many times as fast there. Features are centred on the scene's mean, so its
    error is a few float32 roundings of the scene's variance, by which the kernels divide.
    """
    if one_PK.device.type == "cpu":
        return torch.cdist(one_PK, other_QK, compute_mode="donot_use_mm_for_euclid_dist").square()
    lengths_PQ = one_PK.square().sum(dim=1)[:, None] + other_QK.square().sum(dim=1)
    return torch.addmm(lengths_PQ, one_PK, other_QK.T, alpha=-2.0).clamp_min_(0.0)


def _members(targets_Q: Tensor, classes: int) -> Tensor:
    """float64 (Q, C): 1 for each pixel's own class."""
    return (targets_Q[:, None] == torch.arange(classes, device=targets_Q.device)).double()


def _widest_kernel(one_PK: Tensor, other_QK: Tensor, variance: Tensor) -> Tensor:
    """The widest Gaussian (P, Q) of the distances between features.

    The distances come from a matrix product, which is ten times as fast as differences. Features are centred on the
    scene, so what rounding takes from them is small beside the scene's variance.
    """
    sharpness = 1.0 / (2 * KERNEL_WIDTHS[-1] ** 2 * variance)
    exponent_PQ = torch.addmm(-sharpness * other_QK.square().sum(dim=1), one_PK, (2.0 * sharpness * other_QK).T)
    exponent_PQ -= sharpness * one_PK.square().sum(dim=1, keepdim=True)
    return exponent_PQ.clamp_(max=0.0).exp_()


def _of_text(values_XC: Tensor, text_CE: Tensor) -> Tensor:
    """What gives these values (X, C) or (C,) of the classes when it is projected onto the class vectors, (.., E)."""
    from_text_EC = torch.linalg.pinv(text_CE.double()).float()
    of_text_XE: Tensor = values_XC @ from_text_EC.T
    return of_text_XE


def _level(seen_C: Tensor) -> Tensor:
    """What is added to the scores of each class (C,), so that a class without shots scores below every other."""
    return -(~seen_C).double()


def _ridge(targets_Q: Tensor, count_C: Tensor) -> Tensor:
    """The ridge (Q,) by which each class has the same weight, however many shots it has."""
    ridge_Q: Tensor = RIDGE * count_C[targets_Q] * int((count_C > 0).sum()) / len(targets_Q)
    return ridge_Q


def _weighed(targets_Q: Tensor) -> Tensor:
    """The support pixels that weigh the kernels: all, or of each class every n-th, small classes whole."""
    counts = torch.bincount(targets_Q)
    quotas = balanced_quotas({one: int(counts[one]) for one in counts.nonzero().flatten().tolist()}, MOST_WEIGHED)
    chosen = [targets_Q[:0]]
    for target, quota in quotas.items():
        of_class = torch.nonzero(targets_Q == target).flatten()
        chosen.append(of_class[torch.arange(quota, device=of_class.device) * len(of_class) // quota])
    return torch.cat(chosen).sort().values


def _weights(support_SQK: Tensor, targets_Q: Tensor, classes: int, variance_S: Tensor, scene_SPK: Tensor) -> Tensor:
    """The weight of each kernel (G,), summing to 1.

    By how well it predicts each support pixel from the others, and how far its feature set agrees with the others.
    """
    member_QC = _members(targets_Q, classes)
    count_C = member_QC.sum(dim=0)
    ridge_Q, level_C = _ridge(targets_Q, count_C), _level(count_C > 0)
    each_G = variance_S.new_ones(len(variance_S) * len(KERNEL_WIDTHS))
    solved = [
        _solved(kernel_QQ, member_QC, ridge_Q)
        for _, kernel_QQ in _kernels(support_SQK, support_SQK, variance_S, each_G)
    ]
    held_out_GQC = torch.stack([one.held_out_QC for one in solved])
    held_out_likelihood_GQ = torch.log_softmax(SCORE_SHARPNESS * (held_out_GQC + level_C), dim=2)[:, member_QC.bool()]
    # without its only shot, a class cannot be predicted
    found_G = HELD_OUT_TRUST * held_out_likelihood_GQ[:, count_C[targets_Q] > 1].sum(dim=1)
    score_SPC = member_QC.new_zeros(len(variance_S), scene_SPK.shape[1], classes)
    for number, kernel_PQ in _kernels(scene_SPK, support_SQK, variance_S, each_G):
        score_SPC[number // len(KERNEL_WIDTHS)] += kernel_PQ.double() @ solved[number].dual_coef_QC
    agreement_S = _agreement((score_SPC + level_C).argmax(dim=2))
    found_G += AGREEMENT_TRUST * torch.log(agreement_S + LEAST_AGREEMENT).repeat_interleave(len(KERNEL_WIDTHS))
    weight_G = torch.softmax(found_G, dim=0).float()
    weight_G = torch.where(weight_G < LEAST_WEIGHT, 0.0, weight_G)
    return weight_G / weight_G.sum()


def _agreement(classes_SP: Tensor) -> Tensor:
    """The share of the pixels to which another feature set gives the same class (S,), on average over the others."""
    same_SS = (classes_SP[:, None] == classes_SP).double().mean(dim=2)
    others = max(len(classes_SP) - 1, 1)
    agreement_S: Tensor = (same_SS.sum(dim=1) - 1.0) / others
    return agreement_S


def _factor(kernel_QQ: Tensor, ridge_Q: Tensor) -> Tensor:
    """The Cholesky factor of the regression's equations, in double precision."""
    factor_QQ: Tensor = torch.linalg.cholesky(kernel_QQ.double() + torch.diag(ridge_Q))
    return factor_QQ


class _Solved(NamedTuple):
    """A regression's dual coefficients (Q, C), and its leave-one-out predictions (Q, C)."""

    dual_coef_QC: Tensor
    held_out_QC: Tensor


def _solved(kernel_QQ: Tensor, score_QC: Tensor, ridge_Q: Tensor) -> _Solved:
    """Solves the regression, and predicts each pixel without it in closed form (Rasmussen and Williams, eq. 5.12)."""
    factor_QQ = _factor(kernel_QQ, ridge_Q)
    dual_coef_QC = torch.cholesky_solve(score_QC, factor_QQ)
    inverse_Q = torch.cholesky_inverse(factor_QQ).diagonal()
    return _Solved(dual_coef_QC, score_QC - dual_coef_QC / inverse_Q[:, None])
