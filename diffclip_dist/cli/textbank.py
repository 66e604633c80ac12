"""Vectors of class names and captions by a CLIP model, as files."""

import argparse

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.words.materials import MATERIALS
from diffclip_dist.words.open_clip_text import PROMPTS, OpenClipTexts
from diffclip_dist.words.text_bank import TextBank
from shards.archive.archive import Archive
from shards.errors import BadInput


def run(arguments: argparse.Namespace) -> int:
    """Writes the bank."""
    kind, _, source = arguments.text.partition(":")
    if kind != "open_clip" or not source:
        raise BadInput(f"--text {arguments.text}: expected open_clip:MODEL[:PRETRAINED]")
    if arguments.out.suffix != ".npy":
        raise BadInput(f"--out {arguments.out}: expected a name that ends in .npy")
    names_file = arguments.out.with_suffix(".json")
    for file in (arguments.out, names_file):
        if file.exists():
            raise BadInput(f"--out {file}: exists already; name another file")
    if not arguments.out.parent.is_dir():
        raise BadInput(f"--out {arguments.out}: its folder does not exist; make it first")
    wanted = [name.strip() for name in arguments.names.split(",") if name.strip()]
    for location in arguments.archive:
        for record in Archive.open_unverified(location).manifest.scenes:
            wanted += [*record.classes.values(), *record.descriptions.values()]
    wanted += [caption for material in MATERIALS for caption in material.captions]
    names = list({name.casefold(): name for name in reversed(wanted)}.values())[::-1]
    texts = OpenClipTexts(source)
    bank = TextBank(arguments.out, names_file, tuple(names), texts.vectors(names), texts.label)
    bank.write()
    print(f"bank   {bank.file}, with its texts in {names_file}")
    print(f"holds  {len(names)} texts, each the mean of {len(PROMPTS)} prompts, by {texts.label}")
    print(f"use    fewshot.py --text bank:{bank.file}")
    return EXIT_DONE
