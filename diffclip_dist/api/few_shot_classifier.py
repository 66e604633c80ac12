"""The few-shot classifier as an estimator that follows scikit-learn's conventions."""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch

from diffclip_dist.api.encoders import EncoderLike, encoder_for
from diffclip_dist.api.estimator_parameters import EstimatorParameters, NotFittedError
from diffclip_dist.api.scenes import Raster, SceneLike, like_scene, readable_scene
from diffclip_dist.feature_extraction.band_match import pick_bands
from diffclip_dist.feature_extraction.encoder_source import BANDS_ONLY, NamedEncoder
from diffclip_dist.feature_extraction.feature_config import Readout
from diffclip_dist.feature_extraction.scene_survey import SceneStrip
from diffclip_dist.fewshot.classifier import (
    CONFIG_FILE,
    Classifier,
    load_classifier,
    read_encoder_training,
    save_classifier,
)
from diffclip_dist.fewshot.classifier_card import write_classifier_card
from diffclip_dist.fewshot.cross_validation import CrossValidation
from diffclip_dist.fewshot.episodes import LabelMap
from diffclip_dist.fewshot.fewshot_config import ClassPriors, FewshotConfig, HeadKind
from diffclip_dist.fewshot.fit_labels import (
    LabelledScene,
    LabelSource,
    StripLabels,
    cross_validate,
    fit_to_labels,
    labelled_scene,
)
from diffclip_dist.fewshot.scene_match import MatchOptions
from diffclip_dist.mapping import predict as mapping
from shards.archive.archive import ReadableScene, Scene
from shards.archive.manifest import SceneRecord
from shards.errors import BadInput
from shards.nearest import did_you_mean

LARGEST_ID = np.iinfo(np.uint16).max


class FewShotClassifier(EstimatorParameters):
    """Land cover from a few labelled pixels a class and the classes' names.

    ``fit`` learns from every label that it is given; what it learns besides, it learns from the scene's unlabelled
    pixels. A scene is one of an archive (``archive["potsdam"]``), an xarray Dataset (a variable a modality) or
    DataArray, or a dict of NumPy arrays (row, col) or (row, col, band) by modality. What is not finite is missing.

    Args:
        encoder: from `load_encoder`, or its folder; ``"none"`` for random weights; None to use the bands alone.
        text: what class names do. ``words``: they act as a prior, through the spectra of the materials that they name,
            with ``kernel`` and where the scene's bands have wavelengths and its values are reflectance; else as
            ``scratch``. ``bank:FILE.npy`` and ``open_clip:MODEL[:PRETRAINED]``: the same by their vectors, which with
            ``cosine`` are the class vectors. ``scratch``: a small transformer learns class vectors.
        class_names: id to name; None takes those of the scene. A class without a name is called ``class 7``.
        head: ``kernel``, solved in closed form, or ``cosine``, learned by steps (published).
        class_priors: ``estimated`` from the unlabelled scene, or ``equal``.
        discriminant: whether class means are estimated from the unlabelled scene.
        readout: ``pixel``, ``class`` or ``both``: which tokens of the encoder.
        stride: pixels between the windows that are read, at least 1.
        smoothing: rounds of averaging over similar neighbours, 0 or more.
        statistics_windows: windows that features are standardised by.
        window_batch: windows that the encoder takes at once.
        views: with ``cosine``, windows that a labelled pixel is seen in.
        steps: with ``cosine``, optimisation steps.
        learning_rate: with ``cosine``, of projection, scale and text.
        weight_decay: with ``cosine``, of projection and text.
        modality_dropout: with ``cosine``, probability that a view hides one modality.
        tune_encoder: with ``cosine``, whether the encoder learns too.
        encoder_learning_rate: with ``cosine``, of the encoder where it learns.
        random_state: seed of every draw.
        device: where scenes are read, classifiers are fitted and maps are made, such as ``cuda``.

    Attributes:
        classes_: class ids, ascending.
        class_names_: id to name.
        classifier_: what was fitted, as the commands know it.

    Example:
        >>> classifier = dc.FewShotClassifier(encoder="run/encoder", class_names={1: "roof", 2: "tree"})
        >>> class_map = classifier.fit(scene, labels).predict(scene)
    """

    def __init__(
        self,
        encoder: EncoderLike = None,
        *,
        text: str = "words",
        class_names: Mapping[int, str] | None = None,
        head: HeadKind = FewshotConfig.head,
        class_priors: ClassPriors = FewshotConfig.class_priors,
        discriminant: bool = FewshotConfig.discriminant,
        readout: Readout = FewshotConfig.readout,
        stride: int = FewshotConfig.stride,
        smoothing: int = FewshotConfig.smoothing,
        statistics_windows: int = FewshotConfig.statistics_windows,
        window_batch: int = FewshotConfig.window_batch,
        views: int = FewshotConfig.views,
        steps: int = FewshotConfig.steps,
        learning_rate: float = FewshotConfig.learning_rate,
        weight_decay: float = FewshotConfig.weight_decay,
        modality_dropout: float = FewshotConfig.modality_dropout,
        tune_encoder: bool = FewshotConfig.tune_encoder,
        encoder_learning_rate: float = FewshotConfig.encoder_learning_rate,
        random_state: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.encoder = encoder
        self.text = text
        self.class_names = class_names
        self.head = head
        self.class_priors = class_priors
        self.discriminant = discriminant
        self.readout = readout
        self.stride = stride
        self.smoothing = smoothing
        self.statistics_windows = statistics_windows
        self.window_batch = window_batch
        self.views = views
        self.steps = steps
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.modality_dropout = modality_dropout
        self.tune_encoder = tune_encoder
        self.encoder_learning_rate = encoder_learning_rate
        self.random_state = random_state
        self.device = device

    def fit(
        self,
        scene: SceneLike,
        labels: npt.ArrayLike | None = None,
        *,
        map_bands: bool = False,
        trust_units: bool = False,
    ) -> Self:
        """Learns from every label; a large scene is read in parts.

        The kernel head takes 5,000 labels at most. Of more it learns from a sample, evenly spread over the scene and
        balanced over the classes, and a warning says so. Where class names act, classes that are named and have no
        label are found by their names, and labels may all be 0.

        Args:
            scene: the scene of the labels.
            labels: class ids (row, col), 0 where unlabelled; None takes the scene's own.
            map_bands: where the encoder knows other bands, take the nearest by wavelength.
            trust_units: take a scene whose values seem to come in other units than the encoder's scenes.

        Returns:
            This classifier.

        Raises:
            BadInput: scene, labels, encoder or settings cannot be used, or do not fit each other.
        """
        labelled, shift = self._labelled(scene, labels, map_bands, trust_units)
        if labelled.note is not None:
            warnings.warn(labelled.note, stacklevel=2)
        self._keep(fit_to_labels(labelled, shift), labelled.encoder)
        return self

    def cross_validate(
        self,
        scene: SceneLike,
        labels: npt.ArrayLike | None = None,
        protocol: Literal["random", "blocks"] = "random",
        *,
        map_bands: bool = False,
        trust_units: bool = False,
    ) -> CrossValidation:
        """How well a classifier fitted to these labels does, by cross-validation over them.

        Each label is classified by one that did not learn from it; this classifier stays as it is. Labels that lie
        beside each other are alike, which makes figures of ``random`` optimistic.

        Args:
            scene: the scene of the labels.
            labels: class ids (row, col), 0 where unlabelled; None takes the scene's own.
            protocol: ``random`` holds out labels of every class, one by one where there are few; ``blocks`` whole
                blocks of the scene, whose windows share no pixel with those learned from.
            map_bands: as `fit` takes it.
            trust_units: as `fit` takes it.

        Returns:
            Its ``oa``, ``aa`` (percent), ``kappa`` and ``per_class`` each have ``mean`` and ``ci95``.

        Raises:
            BadInput: as `fit`; or no class has two labels, or labels in two blocks.

        Example:
            >>> found = classifier.cross_validate(scene, labels)
            >>> found.oa.mean, found.oa.ci95
        """
        if protocol not in ("random", "blocks"):
            raise BadInput(
                f"protocol: expected random or blocks, found {protocol}{did_you_mean(protocol, ('random', 'blocks'))}"
            )
        labelled, _ = self._labelled(scene, labels, map_bands, trust_units)
        return cross_validate(labelled, protocol)

    def _labelled(
        self, scene: SceneLike, labels: npt.ArrayLike | None, map_bands: bool, trust_units: bool
    ) -> tuple[LabelledScene, int]:
        """What `fit` learns from, and class id minus the user's."""
        config = FewshotConfig(**{one.name: getattr(self, one.name) for one in fields(FewshotConfig)})
        readable = readable_scene(scene)
        encoder = encoder_for(self.encoder, readable.record, map_bands=map_bands, trust_units=trust_units)
        if torch.device(self.device).type != "cpu":  # a copy: the given encoder stays where it is
            encoder = replace(encoder, encoder=copy.deepcopy(encoder.encoder).to(self.device))
        readable = pick_bands(readable, encoder.matches)
        record = readable.record
        # an archive raises the ids of a scene that has a class 0 by one; given labels and names have the user's ids
        shift = record.class_id_shift
        lowered = 0 if labels is None else shift
        if self.class_names is None:
            names = {class_id - lowered: name for class_id, name in record.classes.items()}
            descriptions = {class_id - lowered: text for class_id, text in record.descriptions.items()}
        else:
            names = {class_id + shift - lowered: name for class_id, name in self.class_names.items()}
            descriptions = {}
        source = _label_source(readable, labels)
        labelled = labelled_scene(readable, encoder, source, names, descriptions, self.text, config, self.random_state)
        return labelled, shift - lowered

    def predict(
        self, scene: SceneLike, *, map_bands: bool = False, trust_units: bool = False, keep_priors: bool = False
    ) -> Raster:
        """Maps a scene, block by block.

        Args:
            scene: the scene of the labels, or another.
            map_bands: where the scene's bands are others, take the nearest by wavelength.
            trust_units: map a scene whose values seem to come in other units.
            keep_priors: with the kernel head, keep class priors and class means of the scene of `fit`; else those of
                another scene are estimated from its unlabelled pixels.

        Returns:
            Class ids (row, col), 0 where no modality has data; uint8 where every id fits, else uint16. Fitted to a
            scene's own labels that have a class 0, ids are one higher, as in ``classes_``. A DataArray with the scene's
            coordinates and CRS for an xarray scene, else a NumPy array.

        Raises:
            NotFittedError: `fit` was not called.
            BadInput: the scene shares no modality with the classifier, or one has other bands or other units.
        """
        options = MatchOptions(map_bands, trust_units, keep_priors)
        found = mapping.predict_map(self.on_device(), readable_scene(scene), options=options)
        return like_scene(found, scene, "class")

    def predict_proba(
        self, scene: SceneLike, *, map_bands: bool = False, trust_units: bool = False, keep_priors: bool = False
    ) -> Raster:
        """Probability of each class, block by block.

        With the kernel head they are calibrated on the labels, each held out in turn: a class of probability 0.8 is
        right for about eight pixels in ten. With fewer than 20 labels to hold out (``classifier_.config.calibration``
        has their number), and with the cosine head, take them for a ranking of pixels by how sure the classifier is.

        Args:
            scene: the scene of the labels, or another.
            map_bands: where the scene's bands are others, take the nearest by wavelength.
            trust_units: map a scene whose values seem to come in other units.
            keep_priors: with the kernel head, keep class priors and class means of the scene of `fit`; else those of
                another scene are estimated from its unlabelled pixels.

        Returns:
            float32 (row, col, class) in the order of ``classes_``, summing to 1; NaN where no modality has data. A
            DataArray for an xarray scene, else a NumPy array.

        Raises:
            NotFittedError: `fit` was not called.
            BadInput: the scene shares no modality with the classifier, or one has other bands or other units.
        """
        options = MatchOptions(map_bands, trust_units, keep_priors)
        found = mapping.predict_probabilities(self.on_device(), readable_scene(scene), options=options)
        return like_scene(found, scene, "probability", ("class", self.classes_.tolist()))

    def score(
        self,
        scene: SceneLike,
        labels: npt.ArrayLike | None = None,
        *,
        map_bands: bool = False,
        trust_units: bool = False,
        keep_priors: bool = False,
    ) -> float:
        """Overall accuracy in [0, 1] over the labelled pixels that have data; labels of classes not known count.

        Args:
            scene: the scene of the labels.
            labels: class ids (row, col), 0 where unlabelled; None takes the scene's own.
            map_bands: as `predict` takes it.
            trust_units: as `predict` takes it.
            keep_priors: as `predict` takes it.

        Raises:
            NotFittedError: `fit` was not called.
            BadInput: as `predict`; or there are no labels where the scene has data.
        """
        readable = readable_scene(scene)
        options = MatchOptions(map_bands, trust_units, keep_priors)
        predicted = mapping.predict_map(self.on_device(), readable, options=options)
        checked = _checked_labels(readable, labels)
        tested = (checked > 0) & (predicted > 0)
        if not tested.any():
            raise BadInput("labels: expected at least one labelled pixel where the scene has data")
        return float(np.mean(checked[tested] == predicted[tested]))

    def save(self, folder: str | Path) -> None:
        """Writes the classifier, for `load` and ``predict.py --model``; an earlier classifier there is replaced.

        Args:
            folder: absent, empty, or a classifier's.

        Raises:
            NotFittedError: `fit` was not called.
            BadInput: the folder holds something else.
        """
        self._check_fitted()
        place = Path(folder)
        if place.exists() and not (place / CONFIG_FILE).is_file() and (not place.is_dir() or any(place.iterdir())):
            raise BadInput(f"{folder}: holds something other than a classifier; name another folder")
        save_classifier(place, self.classifier_, self._encoder_training)
        write_classifier_card(place, self.classifier_.config, self._encoder_training, measured=None)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Reads a classifier that `save` or ``fewshot.py`` wrote.

        Raises:
            BadInput: the folder holds no classifier.
        """
        classifier, training = load_classifier(Path(folder)), read_encoder_training(Path(folder))
        config = classifier.config
        encoder = NamedEncoder(classifier.fitted.encoder, config.encoder, training)
        loaded = cls(
            None if config.encoder == BANDS_ONLY else encoder,
            text=config.text,
            class_names={known.user_id: known.name for known in config.classes},
            random_state=config.seed,
            **{one.name: getattr(config.fewshot, one.name) for one in fields(FewshotConfig)},
        )
        loaded._keep(classifier, encoder)
        return loaded

    def _keep(self, classifier: Classifier, encoder: NamedEncoder) -> None:
        self.classifier_ = classifier
        self.classes_ = np.array([known.class_id for known in classifier.config.classes])
        self.class_names_ = {known.class_id: known.name for known in classifier.config.classes}
        self._encoder_training = encoder.training

    def _check_fitted(self) -> None:
        if not hasattr(self, "classifier_"):
            raise NotFittedError("FewShotClassifier: expected a fitted one; call fit first")

    def on_device(self) -> Classifier:
        """What was fitted, on ``device``.

        Raises:
            NotFittedError: `fit` was not called.
        """
        self._check_fitted()
        if self.classifier_.fitted.text_CE.device.type == torch.device(self.device).type:
            return self.classifier_
        return Classifier(self.classifier_.config, self.classifier_.fitted.to(self.device))


def _label_source(scene: ReadableScene, labels: npt.ArrayLike | None) -> LabelSource:
    """Given labels, or a scene's own, strip by strip.

    Raises:
        BadInput: as `_checked_labels`.
    """
    if labels is not None:
        checked = _checked_labels(scene, labels)
        return lambda strip: StripLabels(checked[strip.rows])

    def own(strip: SceneStrip) -> StripLabels:
        if strip.labels is None:
            raise _no_labels(scene.record)
        return StripLabels(strip.labels)

    return own


def _no_labels(record: SceneRecord) -> BadInput:
    return BadInput(f"scene {record.name}: has no labels of its own; give labels (row, col)")


def _checked_labels(scene: ReadableScene, labels: npt.ArrayLike | None) -> LabelMap:
    """Labels as uint16 (row, col).

    Raises:
        BadInput: there are none, or they are no class ids of the scene's shape.
    """
    record: SceneRecord = scene.record
    if labels is None:
        own = (scene if isinstance(scene, Scene) else scene.read(())).labels
        if own is None:
            raise _no_labels(record)
        return own
    given: npt.NDArray[Any] = np.asarray(labels)
    if given.shape != (record.height, record.width):
        raise BadInput(f"labels: expected shape {(record.height, record.width)}, as the scene, found {given.shape}")
    if given.dtype.kind not in "iuf" or not np.all((given >= 0) & (given <= LARGEST_ID) & (given == np.floor(given))):
        raise BadInput(f"labels: expected whole numbers from 0 (unlabelled) to {LARGEST_ID}")
    return given.astype(np.uint16)
