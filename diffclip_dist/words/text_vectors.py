"""Where the vectors come from that class names and captions are compared by: a sentence model, a bank, or CLIP.

Shapes: T texts, E width of a vector.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from diffclip_dist.words.class_name import ClassName
from diffclip_dist.words.open_clip_text import OpenClipTexts
from diffclip_dist.words.sentence_model import Vectors, sentence_vectors
from diffclip_dist.words.text_bank import TextBank

# The text whose vectors are a sentence model's
WORDS: Final = "words"


class TextVectors(Protocol):
    """Gives texts unit vectors."""

    def knows(self, text: str) -> bool:
        """Whether it has a vector of a text."""

    def knows_class(self, one: ClassName) -> bool:
        """Whether it has a vector of a class."""

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (T, E) of known texts."""

    def of_class(self, one: ClassName) -> Vectors:
        """Unit vectors (T, E) of the wordings of a class; BadInput where it has none."""


class SentenceTexts:
    """Vectors by the sentence model, which is no CLIP. All raise WordsUnavailable where it is missing."""

    def knows(self, text: str) -> bool:
        """Any text has a vector."""
        del text
        return True

    def knows_class(self, one: ClassName) -> bool:
        """Any class has."""
        del one
        return True

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (T, E) of texts."""
        return sentence_vectors(texts)

    def of_class(self, one: ClassName) -> Vectors:
        """Unit vectors (T, E) of a class: of its name, and of its description where there is one."""
        return sentence_vectors(one.texts())


def is_text_source(spec: object) -> bool:
    """Whether `text_vectors` knows such a source; its files may still be missing."""
    if not isinstance(spec, str):
        return False
    kind, _, source = spec.partition(":")
    return spec == WORDS or (kind in ("bank", "open_clip") and bool(source))


def text_vectors(spec: str) -> TextVectors:
    """Opens a source of vectors.

    Args:
        spec: ``words``, ``bank:FILE.npy`` or ``open_clip:MODEL[:PRETRAINED]``.

    Raises:
        BadInput: its files cannot be used.
    """
    kind, _, source = spec.partition(":")
    if kind == "bank":
        return TextBank.read(Path(source))
    if kind == "open_clip":
        return OpenClipTexts(source)
    assert spec == WORDS
    return SentenceTexts()
