"""CLIP's text tower and banks of its vectors, by commands: names to materials, and class vectors of the cosine head.

The model is very small and has random weights. It is saved as open_clip saves one, and its vectors are held to those
that open_clip itself gives.
"""

import json
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_study import Ended, command

from diffclip_dist.fewshot.class_text import ClassText, build_text
from diffclip_dist.fewshot.classifier import load_classifier
from diffclip_dist.words.materials import MATERIALS
from diffclip_dist.words.open_clip_text import PROMPTS, OpenClipTexts
from diffclip_dist.words.text_bank import TextBank
from shards.archive.archive import Archive
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.errors import BadInput
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@dataclass(frozen=True)
class Clip:
    """A model on disk, and as open_clip loads it."""

    folder: Path
    model: Any

    @property
    def text(self) -> str:
        return f"open_clip:local-dir:{self.folder}"

    def expected(self, texts: list[str]) -> torch.Tensor:
        """Vectors (text, width) by open_clip's own prompt ensemble."""
        tokenize = open_clip.get_tokenizer("ViT-B-32")
        with torch.no_grad():
            vectors: torch.Tensor = open_clip.build_zero_shot_classifier(self.model, tokenize, texts, list(PROMPTS))
        return vectors.T


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clip]:
    folder = tmp_path_factory.mktemp("clip")
    content = {"model_cfg": TINY, "preprocess_cfg": asdict(open_clip.transform.PreprocessCfg())}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = open_clip.create_model(f"local-dir:{folder}").eval()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return Clip(folder, model)


@pytest.fixture(scope="module")
def known_as_tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same model by a name that open_clip knows."""
    folder = tmp_path_factory.mktemp("configs")
    (folder / "diffclip-tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    return "diffclip-tiny"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    folder = tmp_path_factory.mktemp("generated") / "archive"
    spec = GeneratedSceneSpec(name="small", height=48, width=64, bands=16, seed=6)
    build_archive([GeneratedScene(spec)], folder, ArchiveSettings())
    return Archive.open(str(folder))


@pytest.fixture(scope="module")
def bank(clip: Clip, generated: Archive, tmp_path_factory: pytest.TempPathFactory) -> TextBank:
    """What `textbank` writes for the scene."""
    file = tmp_path_factory.mktemp("bank") / "bank.npy"
    ended = command("textbank.py", "--text", clip.text, "--archive", generated.location, "--out", file)
    assert ended.status == 0, ended.errors
    assert clip.text in ended.output
    return TextBank.read(file)


def fewshot(archive: Archive, text: str, out: Path, *more: object) -> Ended:
    arguments = ("--archive", archive.location, "--encoder", "none", "--seeds", 1, "--quick", "--out", out)
    return command("fewshot.py", *arguments, "--text", text, *more)


@pytest.fixture(scope="module")
def study(clip: Clip, generated: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No shots and one, names to materials by CLIP's vectors."""
    out = tmp_path_factory.mktemp("study") / "out"
    ended = fewshot(generated, clip.text, out, "--shots", "0,1")
    assert ended.status == 0, ended.errors
    return out


def results_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def test_names_find_materials_by_the_vectors_that_open_clip_gives(clip: Clip, study: Path) -> None:
    results = results_of(study)
    assert results["text"] == clip.text
    captions = [caption for material in MATERIALS for caption in material.captions]
    descriptions = results["names"]
    names = list(descriptions)
    to_captions = clip.expected(names) @ clip.expected(captions).T
    for name, cosines in zip(names, to_captions, strict=True):
        nearest = descriptions[name]["nearest"][0]
        # a description may be nearer than the name
        assert nearest["similarity"] >= float(cosines.max()) - 1e-4
    assert descriptions["water"]["nearest"][0]["caption"] == "water"
    assert descriptions["water"]["known"]
    assert results["shots"]["1"]["names"]["weight"] > 0
    page = (study / "report.html").read_text()
    assert "no CLIP" not in page
    assert f"by vectors of {clip.text}" in page


def test_a_bank_gives_what_its_model_gives(bank: TextBank, clip: Clip, generated: Archive, study: Path) -> None:
    names = list(bank.names)
    assert np.allclose(bank.vectors(names), clip.expected(names).numpy(), atol=1e-5)
    assert bank.source == clip.text
    record = generated.scene("small")
    captions = {caption for material in MATERIALS for caption in material.captions}
    assert {*record.classes.values(), *record.descriptions.values(), *captions} <= set(names)
    out = study.parent / "by-bank"
    ended = fewshot(generated, f"bank:{bank.file}", out, "--shots", "0,1")
    assert ended.status == 0, ended.errors
    by_bank, by_model = results_of(out), results_of(study)
    assert by_bank["text"] == f"bank:{bank.file}, {clip.text}"
    assert by_bank["names"] == by_model["names"]
    for shots in ("0", "1"):
        assert by_bank["shots"][shots]["oa"] == by_model["shots"][shots]["oa"]


def test_a_class_is_added_to_a_saved_classifier_by_the_same_vectors(
    study: Path, clip: Clip, generated: Archive, tmp_path: Path
) -> None:
    model = study / "model-1shot"
    prior = load_classifier(model).fitted.prior
    assert prior is not None
    assert prior.names.text == clip.text
    arguments = ("--archive", generated.location, "--scene", "small", "--also", "snow", "--out", tmp_path / "map.tif")
    ended = command("predict.py", "--model", model, *arguments)
    assert ended.status == 0, ended.errors


@pytest.mark.parametrize("text", [None, 5, "", "scratch", "sentences", "bank", "https://example.org/bank.npy"])
def test_a_classifier_that_names_no_source_of_vectors_is_refused(study: Path, tmp_path: Path, text: object) -> None:
    folder = tmp_path / "model"
    shutil.copytree(study / "model-1shot", folder)
    config = json.loads((folder / "config.json").read_text())
    config["names"]["settings"]["text"] = text
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=r"names' text: expected words, bank:FILE\.npy or open_clip:MODEL, found"):
        load_classifier(folder)


def test_the_cosine_head_aligns_with_the_mean_of_the_prompts_unit_vectors(
    clip: Clip, bank: TextBank, generated: Archive, tmp_path: Path
) -> None:
    arguments = ("--shots", 1, "--head", "cosine")
    record = generated.scene("small")
    described = [ClassText(name, record.descriptions.get(c)).described() for c, name in record.classes.items()]
    for text, wordings in ((clip.text, described), (f"bank:{bank.file}", list(record.classes.values()))):
        out = tmp_path / text[:4]
        ended = fewshot(generated, text, out, *arguments)
        assert ended.status == 0, ended.errors
        classifier = load_classifier(out / "model-1shot")
        of_name = dict(zip(record.classes.values(), clip.expected(wordings), strict=True))
        expected_CE = torch.stack([of_name[known.name] for known in classifier.config.classes])
        assert torch.allclose(classifier.fitted.text_CE, expected_CE, atol=1e-5)
        assert results_of(out)["names"] is None
    ended = fewshot(generated, clip.text, tmp_path / "none", "--shots", 0, "--head", "cosine")
    assert ended.status == 2
    assert "kernel head alone" in ended.errors


def test_a_checkpoint_is_loaded_and_only_without_one_are_weights_called_random(
    clip: Clip, known_as_tiny: str, tmp_path: Path
) -> None:
    weights = load_file(clip.folder / "open_clip_model.safetensors")
    save_file(weights, tmp_path / "checkpoint.safetensors")
    # as RemoteCLIP and GeoRSCLIP come
    torch.save(weights, tmp_path / "checkpoint.pt")
    for file in ("checkpoint.safetensors", "checkpoint.pt"):
        text = build_text(f"open_clip:{known_as_tiny}:{tmp_path / file}", [ClassText("roof")], torch.Generator())
        assert torch.allclose(text(), clip.expected(["roof"]), atol=1e-5)
        assert not list(text.parameters())
        assert "random" not in text.label
    random = OpenClipTexts(known_as_tiny)
    assert random.label == f"open_clip:{known_as_tiny} (random weights)"
    assert not np.allclose(random.vectors(["roof"]), clip.expected(["roof"]).numpy(), atol=0.1)
    ended = command("textbank.py", "--text", f"open_clip:{known_as_tiny}", "--out", tmp_path / "random.npy")
    assert ended.status == 0, ended.errors
    assert TextBank.read(tmp_path / "random.npy").label.endswith("(random weights)")


class Harmful:
    """What a pickle may run."""

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return (Path.touch, (Path("harm"),))  # type: ignore[return-value]


def test_weights_that_cannot_be_had_are_refused_in_one_line(
    clip: Clip, known_as_tiny: str, generated: Archive, tmp_path: Path
) -> None:
    (tmp_path / "harmful.pt").write_bytes(pickle.dumps(Harmful()))
    (tmp_path / "other.safetensors").write_bytes(b"no weights")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "open_clip_config.json").write_text((clip.folder / "open_clip_config.json").read_text())
    for source in (
        f"local-dir:{empty}", "ViT-B-32:no-such-weights", "no-such-model",
        f"{known_as_tiny}:{tmp_path / 'harmful.pt'}", f"{known_as_tiny}:{tmp_path / 'other.safetensors'}",
    ):  # fmt: skip
        with pytest.raises(BadInput, match="cannot be loaded"):
            OpenClipTexts(source)
    assert not Path("harm").exists()
    ended = fewshot(generated, f"open_clip:local-dir:{empty}", tmp_path / "out", "--shots", "0,1")
    assert ended.status == 2
    assert len(ended.errors.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_bank_without_a_class_or_without_captions_is_refused_in_one_line(
    bank: TextBank, generated: Archive, tmp_path: Path
) -> None:
    kept = [name for name in bank.names if name not in ("water", generated.scene("small").descriptions[9])]
    TextBank(tmp_path / "dry.npy", tmp_path / "dry.json", tuple(kept), bank.vectors(kept), bank.source).write()
    for head in ("kernel", "cosine"):
        ended = fewshot(generated, f"bank:{tmp_path / 'dry.npy'}", tmp_path / head, "--shots", 1, "--head", head)
        assert ended.status == 2
        assert "dry.json: no entry for class water" in ended.errors
        assert len(ended.errors.strip().splitlines()) == 1
        assert not (tmp_path / head).exists()
    names = list(generated.scene("small").classes.values())
    TextBank(tmp_path / "few.npy", tmp_path / "few.json", tuple(names), bank.vectors(names)).write()
    ended = fewshot(generated, f"bank:{tmp_path / 'few.npy'}", tmp_path / "few", "--shots", "0,1")
    assert ended.status == 2
    assert "captions of too few materials; diffclip textbank" in ended.errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--text", "words", "--out", "bank.npy"), "expected open_clip:MODEL"),
        (("--text", "open_clip:x", "--out", "bank.json"), "expected a name that ends in .npy"),
        (("--text", "open_clip:x", "--out", "absent/bank.npy"), "its folder does not exist"),
        (("--text", "open_clip:no-such-model", "--out", "bank.npy"), "cannot be loaded"),
    ],
)
def test_a_bank_that_cannot_be_written_is_refused(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = command("textbank.py", *arguments)
    assert ended.status == 2
    assert said in ended.errors
    assert len(ended.errors.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
