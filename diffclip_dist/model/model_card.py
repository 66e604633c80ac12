"""README.md of a model's folder: a card in the form of Hugging Face, from what is known when the model is saved."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from shards.archive.publish import publish_file

CARD_FILE: Final = "README.md"
LIBRARY: Final = "diffclip-dist"
# which licence the weights have is for whoever publishes them to say
LICENCE: Final = "unknown"
LICENCE_SECTION: Final = (
    "Nobody has stated a licence of these weights. Whoever publishes them states one, here and as `license` above, "
    "with regard to the licences of the scenes that they learned from. The code that reads them is under Apache-2.0."
)


def write_card(folder: Path, front_matter: Mapping[str, Any], title: str, sections: Mapping[str, str]) -> None:
    """Writes README.md into a folder that exists.

    Args:
        folder: the model's.
        front_matter: what Hugging Face reads of a card, see https://huggingface.co/docs/hub/model-cards.
        title: of the card.
        sections: heading to text in Markdown, in their order.
    """
    known = {"library_name": LIBRARY, "license": LICENCE, **front_matter}
    head = yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=120)
    body = "\n\n".join(f"## {heading}\n\n{text}" for heading, text in sections.items())
    partial = folder / f".{CARD_FILE}.partial"
    partial.write_text(f"---\n{head}---\n\n# {plain(title)}\n\n{body}\n", encoding="utf-8")
    publish_file(partial, folder / CARD_FILE)


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(plain(cell) for cell in line)} |" for line in lines)


def plain(text: object) -> str:
    """Text that keeps to its line and its cell, whatever a scene or a class is called."""
    return " ".join(str(text).split()).replace("|", r"\|").replace("<", "&lt;").replace("`", "'")
