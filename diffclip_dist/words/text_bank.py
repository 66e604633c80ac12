"""Stored vectors of texts: a .npy file (texts, width) with a JSON file of the texts beside it.

The JSON file holds a list of the texts, or an object with the list as ``names`` and what the vectors are of as
``source``. `diffclip textbank` writes the latter.

Shapes: T texts, E width of a vector.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from diffclip_dist.words.class_name import ClassName
from diffclip_dist.words.sentence_model import Vectors
from shards.archive.publish import publish_file
from shards.errors import BadInput
from shards.nearest import did_you_mean

# Qualifiers that banks of stuff classes add to a plain name, as in "water-other"
QUALIFIERS = (" other", " stuff")


@dataclass(frozen=True)
class TextBank:
    """Texts and their vectors.

    Attributes:
        file: of the vectors.
        names_file: of the texts.
        names: the texts.
        vectors_TE: of each, with length 1.
        source: what the vectors are of, such as ``open_clip:ViT-B-16:openai``; None where the bank does not say.
    """

    file: Path
    names_file: Path
    names: tuple[str, ...]
    vectors_TE: Vectors
    source: str | None = None

    @classmethod
    def read(cls, file: Path) -> "TextBank":
        """Reads a bank.

        Raises:
            BadInput: a file is missing, or is no bank.
        """
        vectors_TE = _read_vectors(file)
        names_file, names, source = _read_names(file, len(vectors_TE))
        return cls(file, names_file, tuple(names), vectors_TE, source)

    @property
    def label(self) -> str:
        """The bank as results show it, with what it holds vectors of."""
        return f"bank:{self.file}" if self.source is None else f"bank:{self.file}, {self.source}"

    @cached_property
    def _row_of(self) -> dict[str, int]:
        """Plain text to row; of several, the first."""
        return {_plain(name): row for row, name in reversed(list(enumerate(self.names)))}

    def knows(self, text: str) -> bool:
        """Whether the bank holds a text."""
        return _plain(text) in self._row_of

    def knows_class(self, one: ClassName) -> bool:
        """Whether the bank has entries for a class."""
        return bool(self._rows(one))

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (T, E) of texts that the bank holds."""
        return self.vectors_TE[[self._row_of[_plain(text)] for text in texts]]

    def of_class(self, one: ClassName) -> Vectors:
        """Unit vectors (T, E) of a class: of its entries together, and of its description where that is an entry.

        Raises:
            BadInput: the bank has no entry for the class.
        """
        self.entries([one])
        mean = self.vectors_TE[self._rows(one)].mean(axis=0, keepdims=True)
        found = mean / np.linalg.norm(mean)
        described = one.description is not None and self.knows(one.description)
        return np.concatenate([found, self.vectors([str(one.description)])]) if described else found

    def entries(self, classes: Sequence[ClassName]) -> dict[str, list[str]]:
        """The texts that stand for each class: its name, else all that its description lists.

        Raises:
            BadInput: the bank has no entry for a class.
        """
        rows = {one.name: self._rows(one) for one in classes}
        missing = [name for name, found in rows.items() if not found]
        if missing:
            raise BadInput(
                f"{self.names_file}: no entry for class {', '.join(missing)}; name each class, or list entries in its "
                f"description in the scene.yaml, as the bank does{did_you_mean(missing[0], self.names)}"
            )
        return {name: [self.names[row] for row in found] for name, found in rows.items()}

    def _rows(self, one: ClassName) -> list[int]:
        listed = (one.description or "").split(",")
        for wanted in ([one.name], listed):
            found = [self._row_of[_plain(name)] for name in wanted if _plain(name) in self._row_of]
            if len(found) == len(wanted):
                return found
        return []

    def write(self) -> None:
        """Writes both files, each whole before it gets its name."""
        content = {"source": self.source, "names": list(self.names)}
        partial_names, partial = (file.with_name(f".{file.name}.partial") for file in (self.names_file, self.file))
        try:
            partial_names.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            with partial.open("wb") as opened:
                np.save(opened, self.vectors_TE)
            publish_file(partial_names, self.names_file)
            publish_file(partial, self.file)
        finally:
            for left in (partial_names, partial):
                left.unlink(missing_ok=True)


def _plain(name: str) -> str:
    plain = " ".join(name.casefold().replace("-", " ").replace("_", " ").split())
    for qualifier in QUALIFIERS:
        plain = plain.removesuffix(qualifier)
    return plain


def _read_vectors(file: Path) -> Vectors:
    try:
        # mapped, since a header may claim any size, and the file must then have it
        vectors = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"{file}: not a readable .npy file of text embeddings ({error})") from error
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise BadInput(f"{file}: expected floating-point text embeddings of shape (names, width)")
    vectors = vectors.astype(np.float32)
    if not np.isfinite(vectors).all() or not np.linalg.norm(vectors, axis=1).all():
        raise BadInput(f"{file}: text embeddings must be finite and not zero")
    # A mean of entries is a mean of directions
    return cast(Vectors, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _read_names(file: Path, count: int) -> tuple[Path, list[str], str | None]:
    """The texts of a bank, and what it says of their vectors.

    They stand in the JSON file of the bank's own name, else in the only fitting one beside it.
    """
    own = file.with_suffix(".json")
    candidates = [own] if own.is_file() else sorted(file.parent.glob("*.json"))
    fitting: list[tuple[Path, list[str], str | None]] = []
    for candidate in candidates:
        try:
            content = json.loads(candidate.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        names, source = _names_and_source(content)
        if isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names):
            fitting.append((candidate, names, source))
    if len(fitting) != 1:
        raise BadInput(
            f"{file}: expected one JSON list of its {count} names beside it ({own.name}), found {len(fitting)}"
        )
    return fitting[0]


def _names_and_source(content: Any) -> tuple[Any, str | None]:
    if not isinstance(content, dict):
        return content, None
    source = content.get("source")
    return content.get("names"), source if isinstance(source, str) else None
