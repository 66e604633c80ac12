"""Folders of models as others get them: a card that says what is known, hashes, and nothing that runs code."""

import json
import re
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from small_study import CLASSES, Study

import diffclip_dist as dc
from diffclip_dist.feature_extraction.encoder_source import SHIPPED_FOLDER
from diffclip_dist.fewshot.classifier import load_classifier
from diffclip_dist.model.encoder_card import write_encoder_card
from shards.archive.archive import Archive
from shards.errors import BadInput


def run_python_of(card: huggingface_hub.ModelCard, folder: Path, archive: Archive) -> dict[str, object]:
    """Runs the card's block of Python with the reader's own places in it."""
    (block,) = re.findall(r"```python\n(.*?)```", card.content, re.DOTALL)
    for placeholder, own in (("FOLDER", folder), ("ARCHIVE", archive.location), ("SCENE", "town")):
        block = block.replace(placeholder, str(own))
    held: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), held)  # noqa: S102  our own card
    return held


def test_a_classifiers_card_has_the_studys_figures_and_loads_as_it_says(study: Study, archive: Archive) -> None:
    folder = study.folder / "model-4shot"
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert card.data.library_name == "diffclip-dist"
    assert card.data.license == "unknown"
    figures = json.loads((study.folder / "results.json").read_text())["shots"]["4"]
    told = {result.metric_name.partition(",")[0]: result.metric_value for result in card.data.eval_results}
    assert told["overall accuracy"] == pytest.approx(figures["oa"]["mean"], abs=1e-3)
    assert told["average accuracy"] == pytest.approx(figures["aa"]["mean"], abs=1e-3)
    assert told["Cohen's kappa"] == pytest.approx(figures["kappa"]["mean"], abs=1e-3)
    assert {result.dataset_name for result in card.data.eval_results} == {"town"}
    for name in CLASSES.values():
        assert f"| accuracy of {name}, % | {figures['per_class'][name]['mean']:.2f} |" in card.text
    assert "4 labelled pixels a class" in card.text
    assert "Pretrained for 7 steps with seed 3, without any label, on: town." in card.text
    assert archive.fingerprint in card.text
    class_map = run_python_of(card, folder, archive)["class_map"]
    assert np.array_equal(class_map, dc.predict_map(folder, archive["town"]))


def test_a_card_of_one_shot_says_that_probabilities_are_not_calibrated(study: Study) -> None:
    assert "probabilities are not calibrated" in (study.folder / "model-1shot" / "README.md").read_text()


def test_an_encoders_card_names_what_it_learned_by(tmp_path: Path) -> None:
    folder = shutil.copytree(SHIPPED_FOLDER, tmp_path / "encoder")
    write_encoder_card(folder)
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert "contrastive" in card.data.tags
    assert "mask-diffusion" not in card.data.tags
    assert "contrast of two parts of a window" in card.text
    assert huggingface_hub.ModelCard.load(SHIPPED_FOLDER / "README.md").data.license == "apache-2.0"


def test_a_classifier_saved_from_python_claims_no_figures(archive: Archive, tmp_path: Path) -> None:
    hostile = {2: "roof | <script>\n# Data", 5: "tree", 7: "water"}
    dc.FewShotClassifier(class_names=hostile).fit(archive["town"]).save(tmp_path / "model")
    card = huggingface_hub.ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.eval_results is None
    assert "None was measured when it was saved." in card.text
    assert "reads bands alone" in card.text
    assert r"| 2 | roof \| &lt;script> # Data |" in card.text
    assert card.text.count("\n## Data") == 1


def test_an_encoders_card_says_what_it_learned_from_and_loads_as_it_says(encoder: Path, archive: Archive) -> None:
    write_encoder_card(encoder)
    card = huggingface_hub.ModelCard.load(encoder / "README.md")
    assert card.data.pipeline_tag == "image-feature-extraction"
    parameters = sum(weights.numel() for weights in dc.load_encoder(encoder).encoder.parameters())
    assert f"{parameters:,} parameters" in card.text
    assert "Pretrained for 7 steps" in card.text
    assert archive.fingerprint in card.text
    assert "| lidar | 1 | unknown |" in card.text
    features = run_python_of(card, encoder, archive)["features"]
    assert np.array_equal(features, dc.features(archive["town"], encoder), equal_nan=True)


def test_a_folder_holds_a_card_settings_and_safetensors_alone(study: Study) -> None:
    held = {path.name for path in (study.folder / "model-4shot").rglob("*") if path.is_file()}
    assert held == {"README.md", "config.json", "model.safetensors"}


def test_a_classifiers_weights_other_than_those_saved_are_refused(study: Study, tmp_path: Path) -> None:
    folder = shutil.copytree(study.folder / "model-4shot", tmp_path / "model")
    weights = folder / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    with pytest.raises(BadInput, match=r"model\.safetensors: its hash is not the one in config\.json"):
        load_classifier(folder)
    # a classifier of an earlier version holds no hash
    config = json.loads((folder / "config.json").read_text())
    del config["weights_sha256"]
    (folder / "config.json").write_text(json.dumps(config))
    load_classifier(folder)
