"""Vectors of texts by the frozen text tower of a CLIP model that open_clip loads.

Shapes: T texts, N prompts, E width of a vector.
"""

import pickle
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import safetensors
import torch
from torch.nn.functional import normalize

from diffclip_dist.words.class_name import ClassName
from diffclip_dist.words.sentence_model import Vectors
from shards.errors import BadInput
from shards.extras import install_line, installed

# CLIP was trained on captions of pictures, so a text is put into several (Radford et al. 2021, section 3.1.4). The
# first is the paper's
PROMPTS: Final = (
    "a multimodal fusion patch of a {}.",
    "a satellite photo of {}.",
    "an aerial photo of {}.",
    "a remote sensing image of {}.",
    "{} seen from above.",
    "a photo of {}.",
)
# Models that name a place of their own, where weights lie beside the model's description
PLACES: Final = ("local-dir:", "hf-hub:")
TEXTS_AT_ONCE: Final = 32


class _Tower(NamedTuple):
    """A model, and the vectors of the texts that it was asked for: a study asks for captions more than once."""

    model: Any
    tokenize: Any
    has_weights: bool
    known: dict[str, Vectors]


class OpenClipTexts:
    """The text side of a CLIP model.

    Attributes:
        label: the model as results show it, with a word where its weights are random.
    """

    def __init__(self, source: str) -> None:
        """Loads the model.

        Args:
            source: ``MODEL[:PRETRAINED]``, where PRETRAINED is a tag of open_clip or a checkpoint file; or
                ``local-dir:FOLDER`` or ``hf-hub:NAME``. A MODEL alone has random weights.

        Raises:
            BadInput: it cannot be loaded, or open_clip is not installed.
        """
        self._tower = _loaded(source)
        self.label = f"open_clip:{source}" + ("" if self._tower.has_weights else " (random weights)")

    def knows(self, text: str) -> bool:
        """Any text has a vector."""
        return bool(text.strip())

    def knows_class(self, one: ClassName) -> bool:
        """Any class has."""
        return self.knows(one.name)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (T, E) of texts: for each the mean of the unit vectors of its prompts."""
        known = self._tower.known
        new = [text for text in dict.fromkeys(texts) if text not in known]
        for start in range(0, len(new), TEXTS_AT_ONCE):
            some = new[start : start + TEXTS_AT_ONCE]
            tokens = self._tower.tokenize([prompt.format(text) for text in some for prompt in PROMPTS])
            with torch.no_grad():
                each = normalize(self._tower.model.encode_text(tokens).float(), dim=-1)
            each_TNE = each.reshape(len(some), len(PROMPTS), -1)
            known |= dict(zip(some, normalize(each_TNE.mean(dim=1), dim=-1).numpy(), strict=True))
        return np.stack([known[text] for text in texts])

    def of_class(self, one: ClassName) -> Vectors:
        """Unit vectors (T, E) of a class: of its name, and of its description where there is one."""
        return self.vectors(one.texts())


@lru_cache(maxsize=1)
def _loaded(source: str) -> _Tower:
    """The model, kept for the next text, since large ones take long to load."""
    if not installed("open_clip"):
        raise BadInput(f"--text open_clip:{source}: {install_line('open_clip')}")
    import open_clip  # takes seconds to import, and not every text needs it

    if source.startswith(PLACES):
        model_name, pretrained, has_weights = source, None, True
    else:
        model_name, _, tag = source.partition(":")
        pretrained, has_weights = tag or None, bool(tag)
    try:
        with torch.random.fork_rng(devices=[]):
            # Weights that are not loaded are drawn by open_clip from the global generator
            torch.manual_seed(0)
            # checkpoints that are pickles are read as tensors alone
            model = open_clip.create_model(
                model_name, pretrained=pretrained, require_pretrained=has_weights, weights_only=True
            )
        tokenize = open_clip.get_tokenizer(model_name)
    except (
        RuntimeError, ValueError, OSError, AssertionError, KeyError, pickle.UnpicklingError, safetensors.SafetensorError
    ) as error:  # fmt: skip
        raise BadInput(f"--text open_clip:{source}: cannot be loaded: {error}") from error
    return _Tower(model.eval(), tokenize, has_weights, {})
