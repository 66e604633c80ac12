"""What class names are taken for, and where the spectra come from."""

from pathlib import Path

import pytest

from diffclip_dist.words.class_name import ClassName
from diffclip_dist.words.materials import MATERIALS, SOURCES
from diffclip_dist.words.name_matching import (
    CAPTIONS_DEVIATION,
    CAPTIONS_MEAN,
    NameMatch,
    caption_cosines,
    match_names,
)
from diffclip_dist.words.sentence_model import sentence_vectors
from diffclip_dist.words.words_config import WordsConfig

PAGE = Path(__file__).resolve().parents[2] / "docs" / "names.md"


def _match(name: str, description: str | None = None) -> NameMatch:
    return match_names([ClassName(name, description)], WordsConfig())[0][0]


@pytest.mark.parametrize(
    ("name", "material"),
    [
        ("Spruce forest", "conifers"),
        ("water body", "clear water"),
        ("paved_road", "asphalt"),
        ("corrugated steel roof", "metal roof"),
        ("unpaved track", "dirt road"),
        ("burned area", "burnt land"),
    ],
)
def test_other_wordings_find_their_material(name: str, material: str) -> None:
    match = _match(name)
    assert match.known
    assert match.nearest[0].material == material


@pytest.mark.parametrize("name", ["Quercus robur", "class 3", "quarterly report", "soybean mintill", "unclassified"])
def test_species_varieties_and_abstract_words_are_unknown(name: str) -> None:
    assert not _match(name).known


def test_a_description_makes_a_strange_name_known() -> None:
    match = _match("Quercus robur", "deciduous trees")
    assert match.known
    assert match.nearest[0].caption == "deciduous trees"


def test_a_match_does_not_depend_on_the_other_classes() -> None:
    alone = _match("lawn")
    among = match_names([ClassName(name) for name in ("sea", "lawn", "a gravel road in a wood")], WordsConfig())[0][1]
    assert alone == among


def test_the_cosines_between_captions_are_those_that_other_vectors_are_scaled_by() -> None:
    found = caption_cosines(sentence_vectors([caption for one in MATERIALS for caption in one.captions]))
    assert found == pytest.approx((CAPTIONS_MEAN, CAPTIONS_DEVIATION), abs=2e-3)


def test_every_material_names_sources_and_their_licence_and_the_page_lists_them() -> None:
    text = " ".join(PAGE.read_text().split())
    for material in MATERIALS:
        assert material.captions
        assert material.sources
        for source in material.sources:
            assert "(MIT)" in source or "(this package)" in source
    for source in SOURCES.values():
        assert (
            source.rpartition(": ")[2]
            .replace("Lee et al. 1999", "Lee et al. (1999)")
            .replace("Zege 2004", "Zege (2004)")
            in text
        )
    assert f"{len(MATERIALS)} materials" in text
