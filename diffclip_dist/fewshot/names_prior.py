"""Class names as a prior over a pixel's class, which fades with shots and is trusted by how it does on them.

What names tell of a pixel is P(class | pixel) of `NameClassifier`. Two things are learned from the shots: which class
the names take each class for, and how far the names are trusted at all. Between classes with shots the prior adds to
the scores, less the more shots there are. Classes without shots have no scores: whether a pixel is one of them, only
names tell, and that does not fade.

Shapes: P pixels, Q support pixels, C classes, H rows and W columns of a scene.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffclip_dist.feature_extraction.scene_view import SceneView
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.words.class_name import ClassName
from diffclip_dist.words.name_classifier import NameClassifier
from diffclip_dist.words.text_vectors import WORDS, text_vectors
from diffclip_dist.words.words_unavailable import WordsUnavailable
from shards.archive.archive import ReadableScene

Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]

# The text with which names never act on pixels; it follows where those of `words` cannot
WITHOUT_WORDS: Final = "scratch"
NEEDS_KERNEL: Final = "class names act with the kernel head alone"
# Chosen on generated scenes at 1 to 10 shots, with posteriors that were right, half right, shuffled and surely wrong
FULL_WEIGHT: Final = 2.0  # of the log-prior at one shot a class; it falls as 1 / shots
FLOOR: Final = 0.02  # added to the prior's probabilities: no class is ruled out by its name
EXPECTED_SHOTS: Final = 3.0  # shots that each class is taken to have had, which went as its name was expected to
TRUSTS: Final = 41  # values of the trust that are weighed, from 0 to 1
LEAST_PROBABILITY: Final = 1e-6
# Pixels whose names are read at once
NAME_BATCH: Final = 2**14


@dataclass(frozen=True)
class ToldByName:
    """Classes that are told by their names in a scene.

    Attributes:
        names: tells P(class | pixel).
        classes: in the order of its probabilities.
    """

    names: NameClassifier
    classes: tuple[ClassName, ...]


@dataclass(frozen=True)
class ByName:
    """Whether class names act, and for which classes.

    Attributes:
        text: what the class vectors are made from, as `build_text` takes it.
        class_ids: of the classes to tell apart: those with labels, and where names act those with a known name.
        told: tells these classes by their names; None where names tell nothing of the scene's pixels.
        reason: why they do not, in one line; None where they do, were not asked for, or act as class vectors.
    """

    text: str
    class_ids: tuple[int, ...]
    told: ToldByName | None = None
    reason: str | None = None


def tell_by_name(
    text: str,
    scene: ReadableScene,
    listed: Mapping[int, ClassName],
    labelled: Collection[int],
    config: FewshotConfig,
) -> ByName:
    """Makes class names act where they were asked for and can; else class vectors come from ``scratch``.

    Vectors of a bank or of CLIP act through materials with the kernel head, and as class vectors with the cosine head.
    They are class vectors too where names tell nothing of the scene.

    Args:
        text: kind of text, as `build_text` takes it; all but ``scratch`` ask for names.
        scene: the scene of the shots.
        listed: names of all classes by their ids, ascending.
        labelled: ids of the classes that have labels.
        config: has the head.

    Raises:
        BadInput: the vectors cannot be read, or a bank has none of a class with labels.
    """
    with_labels = tuple(class_id for class_id in listed if class_id in labelled)
    if text == WITHOUT_WORDS:
        return ByName(text, with_labels)
    otherwise = WITHOUT_WORDS if text == WORDS else text
    if config.head != "kernel":
        return ByName(otherwise, with_labels, reason=NEEDS_KERNEL if text == WORDS else None)
    source = text_vectors(text)
    listed = {c: one for c, one in listed.items() if c in labelled or source.knows_class(one)}
    try:
        names = NameClassifier.fit(scene, tuple(listed.values()), text=text)
    except WordsUnavailable as reason:
        return ByName(otherwise, with_labels, reason=str(reason))
    known_C = _known(names)
    if not known_C.any():
        return ByName(otherwise, with_labels, reason="class names: none is near the caption of a material")
    kept = {c: one for (c, one), known in zip(listed.items(), known_C.tolist(), strict=True) if known or c in labelled}
    if len(kept) < len(listed):
        names = names.with_classes(list(kept.values())).for_scene(scene)
    return ByName(text, tuple(kept), ToldByName(names, tuple(kept.values())))


@dataclass(frozen=True)
class NamesPrior:
    """What the names say, corrected by the shots.

    Attributes:
        names: tells P(class | pixel); on the CPU.
        classes: their names, in the order of the class vectors.
        said_CC: P(class that the names say | true class), from the shots.
        trust: 0 to 1, the share of the names' word beside a uniform one.
        weight: of the log-prior between classes with shots; 0 without shots, where nothing is to be added to.
        count_C: shots of each class.
        right_C: of these, the shots whose class the names say.
    """

    names: NameClassifier
    classes: tuple[ClassName, ...]
    said_CC: Tensor
    trust: float
    weight: float
    count_C: Tensor
    right_C: Tensor

    @property
    def known(self) -> Tensor:
        """bool, whose names are near a caption."""
        return _known(self.names).to(self.count_C.device)

    @property
    def has_shots(self) -> Tensor:
        """bool, which classes have shots."""
        return self.count_C > 0

    @classmethod
    def fit(cls, told: "ToldByName", log_QC: Tensor, targets_Q: Tensor) -> "NamesPrior":
        """Learns from the shots how right the names are.

        Args:
            told: tells classes by their names.
            log_QC: what they tell of each shot, log P(class | pixel); there may be no shot.
            targets_Q: class index of each.
        """
        classes = log_QC.shape[1]
        known_C = _known(told.names)
        told_QC = _of_known(log_QC, known_C)
        count_C = torch.bincount(targets_Q, minlength=classes).float()
        # names that all shots together contradict are expected to say anything of a class
        own_Q = told_QC.gather(1, targets_Q[:, None])[:, 0]
        right = _trust(own_Q, classes)
        said_CC = EXPECTED_SHOTS * (right * _expected(known_C) + (1.0 - right) / classes)
        said_CC.index_add_(0, targets_Q, told_QC)
        said_CC /= (EXPECTED_SHOTS + count_C)[:, None]
        right_C = torch.bincount(targets_Q[told_QC.argmax(dim=1) == targets_Q], minlength=classes).float()
        shots = float(count_C.sum()) / max(int((count_C > 0).sum()), 1)
        held_out_Q = _held_out(told_QC, targets_Q, said_CC, count_C)
        return cls(
            told.names, told.classes, said_CC, _trust(held_out_Q, classes) if shots else 1.0,
            FULL_WEIGHT / shots if shots else 0.0, count_C, right_C,
        )  # fmt: skip

    def to(self, device: torch.device | str) -> "NamesPrior":
        """The same for pixels on another device; names are read on the CPU."""
        return replace(
            self, said_CC=self.said_CC.to(device), count_C=self.count_C.to(device), right_C=self.right_C.to(device)
        )

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors, those of the name classifier among them."""
        of_names = {f"classifier.{name}": tensor for name, tensor in self.names.state_dict().items()}
        return {"said_CC": self.said_CC, "count_C": self.count_C, "right_C": self.right_C, **of_names}

    def for_scene(self, scene: ReadableScene) -> "NamesPrior":
        """The same in another scene, whose haze and class shares are estimated; what shots told of the names stays.

        Where the scene lacks a modality that the names read, all stays.
        """
        held = {modality.name for modality in scene.record.modalities}
        return replace(self, names=self.names.for_scene(scene)) if held.issuperset(self.names.modalities) else self

    def with_more(self, added: Sequence[ClassName], scene: ReadableScene) -> "NamesPrior":
        """The same with more classes at the end, which have no shots.

        Args:
            added: their names.
            scene: the scene to classify.
        """
        classes = (*self.classes, *added)
        more = replace(self, names=self.names.with_classes(classes), classes=classes).for_scene(scene)
        known, whole = len(self.classes), len(classes)
        said_CC = _expected(_known(more.names))
        said_CC[:known, :known] = self.said_CC
        grown = (torch.nn.functional.pad(of_classes, (0, whole - known)) for of_classes in (self.count_C, self.right_C))
        count_C, right_C = grown
        return replace(more, said_CC=said_CC, count_C=count_C, right_C=right_C)

    def added_scores(self, log_PC: Tensor) -> Tensor:
        """What the names add to the log-likelihoods (P, C) of the classes with shots.

        Args:
            log_PC: what the names tell of the pixels.
        """
        told_PC = self._trusted(log_PC) * self.has_shots
        share_PC = told_PC / told_PC.sum(dim=1, keepdim=True).clamp_min(LEAST_PROBABILITY)
        added_PC: Tensor = self.weight * torch.log(share_PC + FLOOR)
        return added_PC

    def alone(self, log_PC: Tensor) -> Tensor:
        """Log-likelihoods (P, C) of all classes by the names, without shots.

        Args:
            log_PC: what the names tell of the pixels.
        """
        return torch.log(self._trusted(log_PC) + FLOOR)

    def logits(self, logits_PC: Tensor, log_PC: Tensor) -> Tensor:
        """Log-likelihoods (P, C) by shots and names together, up to a constant a pixel.

        Args:
            logits_PC: by the shots alone; without shots, by the class means that the names tell.
            log_PC: what the names tell of the pixels.
        """
        logits_PC = logits_PC + self.added_scores(log_PC)
        by_name_C = ~self.has_shots & self.known
        if not by_name_C.any():
            return logits_PC
        if self.has_shots.any():
            told_PC = self._trusted(log_PC) * (by_name_C | self.has_shots)
            share_PC = told_PC / told_PC.sum(dim=1, keepdim=True).clamp_min(LEAST_PROBABILITY)
            share_PC = share_PC.clamp_min(LEAST_PROBABILITY)
            seen_P = share_PC[:, self.has_shots].sum(dim=1, keepdim=True)
            by_shots_PC = torch.log(seen_P) + _log_shares(logits_PC, self.has_shots)
            found_PC = torch.where(self.has_shots, by_shots_PC, torch.log(share_PC))
        else:
            found_PC = self.alone(log_PC) + logits_PC
        nameless_C = ~(by_name_C | self.has_shots)
        return torch.where(nameless_C, found_PC.amin(dim=1, keepdim=True) - 1.0, found_PC)

    def _trusted(self, log_PC: Tensor) -> Tensor:
        """P(class | pixel) (P, C) by the names, corrected and as far as they are trusted."""
        told_PC = _of_known(log_PC, self.known)
        corrected_PC = told_PC @ (self.said_CC / self.said_CC.sum(dim=0).clamp_min(LEAST_PROBABILITY)).T
        return self.trust * corrected_PC + (1.0 - self.trust) / log_PC.shape[1]


def read_names(names: NameClassifier, scene: SceneView, rows: Positions, cols: Positions) -> Tensor:
    """log P(class | pixel) (P, C) of pixels of a scene, on the CPU.

    Args:
        names: of the classes.
        scene: the scene, or a block of it, with all modalities that the names read and the scene has.
        rows: of the pixels.
        cols: of the pixels.
    """
    found = [torch.zeros(0, len(names.matches))]
    for start in range(0, len(rows), NAME_BATCH):
        piece = slice(start, start + NAME_BATCH)
        values = scene.windows.values_at(rows[piece], cols[piece], names.modalities)
        places: tuple[Tensor, ...] = ()
        if scene.origin is not None:
            down, right = scene.origin
            places = torch.from_numpy(rows[piece] + down), torch.from_numpy(cols[piece] + right)
        with torch.no_grad():
            found.append(names.log_probabilities(values, *places))
    return torch.cat(found)


def read_names_map(names: NameClassifier, scene: SceneView, wanted: Mask) -> Tensor:
    """The same of the wanted pixels that have data, (H, W, C), 0 elsewhere."""
    rows, cols = np.nonzero(wanted & scene.present)
    found_HWC = torch.zeros(*wanted.shape, len(names.matches))
    found_HWC[rows, cols] = read_names(names, scene, rows, cols)
    return found_HWC


def _known(names: NameClassifier) -> Tensor:
    """bool (C,), whose names are near a caption."""
    return torch.tensor([match.known for match in names.matches], dtype=torch.bool)


def _of_known(log_PC: Tensor, known_C: Tensor) -> Tensor:
    """P(class | pixel) (P, C), where a class whose name is unknown has the same share everywhere."""
    classes = len(known_C)
    if not known_C.any():
        return torch.full_like(log_PC, 1.0 / classes)
    told_PC = torch.softmax(log_PC.masked_fill(~known_C, -torch.inf), dim=1)
    shares_PC: Tensor = torch.where(known_C, told_PC * (int(known_C.sum()) / classes), 1.0 / classes)
    return shares_PC


def _expected(known_C: Tensor) -> Tensor:
    """P(class that the names say | true class) (C, C) before a shot is seen; an unknown name tells nothing."""
    classes = len(known_C)
    return torch.where(known_C[:, None], torch.eye(classes), 1.0 / classes)


def _held_out(told_QC: Tensor, targets_Q: Tensor, said_CC: Tensor, count_C: Tensor) -> Tensor:
    """P(true class) (Q,) of each shot by the names, corrected by the other shots."""
    own_QC = said_CC[targets_Q]
    counts_Q1 = (EXPECTED_SHOTS + count_C)[targets_Q][:, None]
    others_QC = (own_QC * counts_Q1 - told_QC) / (counts_Q1 - 1.0).clamp_min(LEAST_PROBABILITY)
    others_QC = others_QC.clamp_min(0.0)
    all_QC = said_CC.sum(dim=0) - own_QC + others_QC
    held_out_Q: Tensor = (told_QC * others_QC / all_QC.clamp_min(LEAST_PROBABILITY)).sum(dim=1)
    return held_out_Q


def _trust(held_out_Q: Tensor, classes: int) -> float:
    """How far the names are to be trusted, 0 to 1: the mean of its posterior, from the likelihood of the shots."""
    trusts_T1 = torch.linspace(0.0, 1.0, TRUSTS)[:, None]
    likely_TQ = torch.log((trusts_T1 * held_out_Q * classes + 1.0 - trusts_T1).clamp_min(LEAST_PROBABILITY))
    return float((torch.softmax(likely_TQ.sum(dim=1), dim=0) * trusts_T1[:, 0]).sum())


def _log_shares(logits_PC: Tensor, among_C: Tensor) -> Tensor:
    """Logarithm of the softmax (P, C) over some of the classes."""
    return torch.log_softmax(logits_PC.masked_fill(~among_C, -torch.inf), dim=1)
