"""Class names into vectors: offline, real CLIP embeddings, open_clip, and what is refused."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from diffclip_dist.fewshot.class_text import ClassText, ScratchTextEncoder, build_text
from shards.errors import BadInput

CLASSES = [ClassText("roof"), ClassText("low vegetation"), ClassText("water", "a lake")]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def write_bank(folder: Path, names: list[str], vectors: np.ndarray | None = None) -> Path:
    vectors = np.random.default_rng(0).normal(size=(len(names), 8)).astype(np.float16) if vectors is None else vectors
    np.save(folder / "bank.npy", vectors)
    (folder / "bank.json").write_text(json.dumps(names))
    return folder / "bank.npy"


def test_scratch_gives_unit_vectors_that_differ_and_every_weight_learns() -> None:
    text = build_text("scratch", CLASSES, generator())
    vectors_CE = text()
    assert torch.allclose(vectors_CE.norm(dim=1), torch.ones(3), atol=1e-5)
    assert (vectors_CE @ vectors_CE.T - torch.eye(3)).max() < 0.999
    (vectors_CE * torch.randn(vectors_CE.shape, generator=generator())).sum().backward()
    without = [name for name, p in text.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_scratch_does_not_depend_on_the_order_of_the_classes_or_on_global_state() -> None:
    before = torch.random.get_rng_state()
    forward_CE = ScratchTextEncoder(CLASSES, generator())()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    backward_CE = ScratchTextEncoder(CLASSES[::-1], generator())()
    assert torch.allclose(forward_CE, backward_CE.flip(0), atol=1e-6)
    assert not torch.equal(ScratchTextEncoder(CLASSES, generator(1))(), forward_CE)


def test_a_description_expands_the_name_in_the_prompt() -> None:
    assert ClassText("water").prompt() == "a multimodal fusion patch of a water."
    assert CLASSES[2].prompt() == "a multimodal fusion patch of a water, a lake."


def test_a_bank_finds_names_and_lists_in_descriptions(tmp_path: Path) -> None:
    names = ["Roof", "grass", "bush", "water-other"]
    vectors = np.eye(4, 6, dtype=np.float16) * 3
    bank = write_bank(tmp_path, names, vectors)
    text = build_text(
        f"bank:{bank}", [ClassText("roof"), ClassText("green", "grass, bush"), ClassText("water")], generator()
    )
    expected = torch.zeros(3, 6)
    expected[0, 0] = expected[2, 3] = 1
    expected[1, 1] = expected[1, 2] = 0.5**0.5
    assert torch.allclose(text(), expected)
    assert text.entries == {"roof": ["Roof"], "green": ["grass", "bush"], "water": ["water-other"]}
    assert not list(text.parameters())


def test_a_bank_names_every_class_it_does_not_know(tmp_path: Path) -> None:
    bank = write_bank(tmp_path, ["roof", "grass"])
    with pytest.raises(BadInput, match=r"bank\.json: no entry for class low vegetation, water"):
        build_text(f"bank:{bank}", CLASSES, generator())
    with pytest.raises(BadInput, match=r"no entry for class gras;.*; did you mean grass\?"):
        build_text(f"bank:{bank}", [ClassText("gras"), ClassText("roof")], generator())


def test_two_classes_of_one_entry_cannot_be_told_apart(tmp_path: Path) -> None:
    bank = write_bank(tmp_path, ["roof", "grass"])
    with pytest.raises(BadInput, match="lawn, meadow have the same entries"):
        build_text(f"bank:{bank}", [ClassText("lawn", "grass"), ClassText("meadow", "grass")], generator())


def test_a_bank_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    claimed = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**3)}
    np.lib.format.write_array_header_1_0(header, claimed)
    (tmp_path / "bank.npy").write_bytes(header.getvalue() + bytes(4000))
    with pytest.raises(BadInput, match=r"not a readable \.npy file"):
        build_text(f"bank:{tmp_path / 'bank.npy'}", CLASSES, generator())


def test_a_bank_with_a_pickle_is_refused(tmp_path: Path) -> None:
    # what a stranger may send: written with a pickle here, and never read as one
    np.save(tmp_path / "bank.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "bank.json").write_text('["roof"]')
    with pytest.raises(BadInput, match=r"bank\.npy: not a readable"):
        build_text(f"bank:{tmp_path / 'bank.npy'}", [ClassText("roof")], generator())


@pytest.mark.parametrize(
    ("vectors", "fault"),
    [
        (np.zeros((2, 4), np.float32), "not zero"),
        (np.full((2, 4), np.nan, np.float32), "finite"),
        (np.ones((2, 4), np.int64), "floating-point"),
        (np.ones(2, np.float32), "shape"),
    ],
)
def test_a_bank_of_unfit_vectors_is_refused(tmp_path: Path, vectors: np.ndarray, fault: str) -> None:
    bank = write_bank(tmp_path, ["roof", "grass"], vectors)
    with pytest.raises(BadInput, match=fault):
        build_text(f"bank:{bank}", [ClassText("roof")], generator())


def test_a_bank_without_fitting_names_is_refused(tmp_path: Path) -> None:
    bank = write_bank(tmp_path, ["roof", "grass"])
    (tmp_path / "bank.json").write_text('["roof"]')
    with pytest.raises(BadInput, match="JSON list of its 2 names"):
        build_text(f"bank:{bank}", [ClassText("roof")], generator())


def test_real_clip_embeddings_tell_that_a_tree_is_nearer_to_a_bush_than_to_a_road(shared_data: Path) -> None:
    bank = shared_data / "clip_text" / "cocostuff_single.npy"
    vectors_CE = build_text(f"bank:{bank}", [ClassText(name) for name in ("tree", "bush", "road")], generator())()
    assert vectors_CE.shape == (3, 512)
    assert vectors_CE[0] @ vectors_CE[1] > vectors_CE[0] @ vectors_CE[2]


@pytest.mark.parametrize("spec", ["", "clip", "bank", "bank:", "open_clip:", "scratch:x"])
def test_an_unknown_kind_is_refused(spec: str) -> None:
    with pytest.raises(BadInput, match="expected words, scratch, bank:FILE or open_clip"):
        build_text(spec, CLASSES, generator())
