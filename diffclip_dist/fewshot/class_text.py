"""Turns class names into unit vectors that pixels are matched with.

Shapes: C classes, L text tokens, E text width.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from diffclip_dist.words.class_name import ClassName
from diffclip_dist.words.open_clip_text import OpenClipTexts
from diffclip_dist.words.text_bank import TextBank
from diffclip_dist.words.text_vectors import WORDS
from shards.errors import BadInput
from shards.extras import install_line, installed

PROMPT = "a multimodal fusion patch of a {}."
SCRATCH_WIDTH = 128
SCRATCH_DEPTH = 2
SCRATCH_HEADS = 4


@dataclass(frozen=True)
class ClassText(ClassName):
    """The name and the description of a class."""

    def prompt(self) -> str:
        """The name, expanded by the description where there is one, in the paper's template."""
        return PROMPT.format(self.described())

    def described(self) -> str:
        """The name, and the description where there is one."""
        return self.name if self.description is None else f"{self.name}, {self.description}"


class ClassTextEncoder(nn.Module):
    """Gives each class a unit vector (C, E).

    Attributes:
        label: kind and source, as results show it.
        entries: for a bank, the names in the bank that stand for each class.
        width: E.
    """

    label: str
    entries: Mapping[str, Sequence[str]]
    width: int


class FrozenTextEncoder(ClassTextEncoder):
    """Class vectors that are given and not trained."""

    def __init__(self, label: str, vectors_CE: Tensor, entries: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__()
        self.label = label
        self.entries = entries or {}
        self.width = vectors_CE.shape[1]
        self.vectors_CE: Tensor
        self.register_buffer("vectors_CE", normalize(vectors_CE.float(), dim=-1))

    def forward(self) -> Tensor:
        return self.vectors_CE


class SeparateClasses(FrozenTextEncoder):
    """Class vectors at right angles: the names act through what they tell of pixels, and not through these.

    Args:
        classes: how many.
        label: of the text whose vectors told what the names mean.
        entries: for a bank, the names in the bank that stand for each class.
    """

    def __init__(self, classes: int, label: str = WORDS, entries: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__(label, torch.eye(classes), entries)


class ScratchTextEncoder(ClassTextEncoder):
    """A small transformer over open_clip's tokens of the prompts, trained with the classifier; needs no download.

    It keeps vectors only for the tokens that the prompts use, in the order of their ids, so that neither its size nor
    its initial weights depend on the vocabulary's size or the order of the classes.
    """

    def __init__(self, classes: Sequence[ClassText], generator: torch.Generator) -> None:
        super().__init__()
        self.label = "scratch"
        self.entries = {}
        self.width = SCRATCH_WIDTH
        tokens_CL = cast(Tensor, _tokenizer()([text.prompt() for text in classes]))
        tokens_CL = tokens_CL[:, : int((tokens_CL != 0).sum(dim=1).max())].contiguous()
        vocabulary = torch.unique(tokens_CL)
        self.tokens_CL: Tensor
        self.ends_C: Tensor
        self.register_buffer("tokens_CL", torch.searchsorted(vocabulary, tokens_CL), persistent=False)
        # open_clip's end token has the highest id, and is where a causal text tower is read out
        self.register_buffer("ends_C", tokens_CL.argmax(dim=1), persistent=False)
        self.places = nn.Parameter(torch.empty(tokens_CL.shape[1], self.width))
        with torch.random.fork_rng(devices=[]):
            # torch draws first weights from its global generator; ours take their place below
            self.embed = nn.Embedding(len(vocabulary), self.width)
            layer = nn.TransformerEncoderLayer(
                self.width,
                SCRATCH_HEADS,
                2 * self.width,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            self.layers = nn.TransformerEncoder(layer, SCRATCH_DEPTH, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(self.width)
        self._initialise(generator)

    def _initialise(self, generator: torch.Generator) -> None:
        for name, parameter in self.named_parameters():
            if "norm" in name:
                continue
            if parameter.dim() == 1:
                nn.init.zeros_(parameter)
            elif name.startswith(("embed", "places")):
                nn.init.normal_(
                    parameter, std=0.02 if name == "places" else 1 / math.sqrt(self.width), generator=generator
                )
            else:
                nn.init.xavier_uniform_(parameter, generator=generator)

    def forward(self) -> Tensor:
        length = self.tokens_CL.shape[1]
        causal_LL = torch.triu(torch.full((length, length), float("-inf"), device=self.tokens_CL.device), diagonal=1)
        states_CLE = self.layers(self.embed(self.tokens_CL) + self.places, mask=causal_LL, is_causal=True)
        ends_CE = states_CLE[torch.arange(len(states_CLE), device=states_CLE.device), self.ends_C]
        return normalize(self.norm(ends_CE), dim=-1)


def check_text_kind(spec: str) -> None:
    """Raises BadInput unless `spec` is one of the four kinds of text."""
    kind, _, source = spec.partition(":")
    if (kind in {"words", "scratch"} and not source) or (kind in {"bank", "open_clip"} and source):
        return
    raise BadInput(f"--text {spec}: expected words, scratch, bank:FILE or open_clip:MODEL[:PRETRAINED]")


@cache
def _tokenizer() -> Callable[[list[str]], Any]:
    """CLIP's; reading its vocabulary takes a sixth of a second."""
    if not installed("open_clip"):
        raise BadInput(f"--text scratch: {install_line('open_clip')}")
    from open_clip.tokenizer import SimpleTokenizer  # takes seconds to import, and not every text needs it

    tokenizer: Callable[[list[str]], Any] = SimpleTokenizer()
    return tokenizer


def build_text(
    spec: str, classes: Sequence[ClassText], generator: torch.Generator, by_name: bool = False
) -> ClassTextEncoder:
    """Builds the text side that `spec` names.

    Args:
        spec: ``words``, ``scratch``, ``bank:FILE.npy`` or ``open_clip:MODEL[:PRETRAINED]``; MODEL may be
            ``local-dir:FOLDER``, and PRETRAINED a checkpoint file.
        classes: the classes, at least one.
        generator: draws the weights of ``scratch``.
        by_name: whether the names act on pixels. The vectors are then at right angles.

    Raises:
        BadInput: an unknown kind, a file that cannot be used, or a class that the bank does not know.
    """
    check_text_kind(spec)
    kind, _, source = spec.partition(":")
    if kind == "words":
        return SeparateClasses(len(classes))
    if kind == "scratch":
        return ScratchTextEncoder(classes, generator)
    text = _bank(Path(source), classes) if kind == "bank" else _open_clip(source, classes)
    return SeparateClasses(len(classes), text.label, text.entries) if by_name else text


def _bank(file: Path, classes: Sequence[ClassText]) -> FrozenTextEncoder:
    bank = TextBank.read(file)
    entries = bank.entries(classes)
    twins = [name for name in entries if list(entries.values()).count(entries[name]) > 1]
    if twins:
        raise BadInput(f"{bank.names_file}: classes {', '.join(twins)} have the same entries and cannot be told apart")
    vectors_CE = np.stack([bank.vectors(entries[text.name]).mean(axis=0) for text in classes])
    return FrozenTextEncoder(bank.label, torch.from_numpy(vectors_CE), entries)


def _open_clip(source: str, classes: Sequence[ClassText]) -> FrozenTextEncoder:
    texts = OpenClipTexts(source)
    vectors = texts.vectors([text.described() for text in classes])
    return FrozenTextEncoder(texts.label, torch.from_numpy(vectors))
