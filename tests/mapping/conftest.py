"""A small archive and a classifier for it; what the classifier says matters less than that it says it everywhere."""

from pathlib import Path

import pytest
import torch
from small_study import CLASSES, MODEL, build, write_small_scene

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.feature_extraction.pixel_features import FeatureStatistics
from diffclip_dist.fewshot.classifier import FORMAT_VERSION, Classifier, ClassifierConfig, MappedClass, save_classifier
from diffclip_dist.fewshot.cosine_head import CosineHead
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.fitted_classifier import FittedClassifier
from diffclip_dist.model.saved_encoder import Training, new_encoder
from shards.archive.archive import Archive
from shards.preview.class_colours import class_colours


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """One scene of two modalities."""
    folder = tmp_path_factory.mktemp("archive")
    return build([str(write_small_scene(folder / "town", "town"))], folder / "built")


@pytest.fixture(scope="session")
def classifier(archive: Archive) -> Classifier:
    """A classifier of random weights."""
    modalities = archive.scene("town").modalities
    encoder = new_encoder(MODEL, [ModalitySchema.of(modality) for modality in modalities], seed=2)
    statistics = FeatureStatistics(torch.zeros(2, MODEL.width), torch.ones(2, MODEL.width))
    head = CosineHead(statistics, 8)
    torch.nn.init.normal_(head.projection_MFE, generator=torch.Generator().manual_seed(0))
    text_CE = torch.nn.functional.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    colours = class_colours(CLASSES)
    config = ClassifierConfig(
        format_version=FORMAT_VERSION,
        scene="town",
        generated=False,
        shots=1,
        seed=0,
        protocol="random",
        encoder="none",
        text="scratch",
        classes=tuple(MappedClass(class_id, name, colours[class_id]) for class_id, name in CLASSES.items()),
        modalities=modalities,
        fewshot=FewshotConfig(head="cosine", window_batch=16),
    )
    return Classifier(config, FittedClassifier(encoder, head, text_CE))


@pytest.fixture(scope="session")
def model(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier's folder."""
    folder = tmp_path_factory.mktemp("model") / "model-1shot"
    save_classifier(folder, classifier, Training(0, 2, "", (), ()))
    return folder
