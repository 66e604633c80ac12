"""A bank of frozen text vectors that needs no download: class names in the paper's template, by the sentence model."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffclip_dist.fewshot.class_text import ClassText
from diffclip_dist.words.sentence_model import sentence_vectors
from diffclip_dist.words.words_unavailable import WordsUnavailable
from shards.errors import BadInput


def sentence_bank(folder: Path, classes: Mapping[int, str]) -> str:
    """Writes the bank of a scene's class names into a folder; the ``--text`` that takes it.

    Raises:
        BadInput: the sentence model is not installed.
    """
    names = list(classes.values())
    try:
        vectors = sentence_vectors([ClassText(name, None).prompt() for name in names])
    except WordsUnavailable as error:
        raise BadInput(str(error)) from None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "names.json").write_text(json.dumps(names))
    np.save(folder / "names.npy", vectors.astype(np.float32))
    return f"bank:{folder / 'names.npy'}"
