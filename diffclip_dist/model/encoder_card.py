"""The model card of an encoder."""

import math
from pathlib import Path
from typing import Final

from safetensors import safe_open

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.model_card import LICENCE_SECTION, plain, table, write_card
from diffclip_dist.model.saved_encoder import WEIGHTS_FILE, Training, read_config

METHOD: Final = "[DiffCLIP, AAAI 2025](https://arxiv.org/abs/2412.07119)"


def write_encoder_card(folder: Path) -> None:
    """Writes the README.md of a saved encoder into its folder."""
    config = read_config(folder)
    model, side = config.model, config.model.window
    with safe_open(folder / WEIGHTS_FILE, "pt") as weights:
        parameters = sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    learned_by = {}
    if model.reconstructs:
        learned_by["mask-diffusion"] = f"mask diffusion ({METHOD}, stage 1)"
    if model.contrast_weight > 0.0:
        learned_by["contrastive"] = "contrast of two parts of a window"
    front_matter = {
        "pipeline_tag": "image-feature-extraction",
        "tags": ["remote-sensing", "self-supervised", *learned_by],
    }
    sections = {
        "What it is": (
            f"A transformer that describes each pixel of a co-registered scene from the {side} x {side} pixels around "
            f"it: {parameters:,} parameters, width {model.width}, depth {model.depth}. Its objective: "
            f"{' and '.join(learned_by.values())}."
        ),
        "Data": f"{describe_training(config.training)}\n\nIt reads:\n\n{modality_table(config.modalities)}",
        "Metrics": (
            "No accuracy was measured when it was saved. `metrics.jsonl` of its run has the loss. What it brings shows "
            "on a labelled scene beside `--encoder none`, an encoder of random weights:\n\n"
            "    diffclip fewshot --archive ARCHIVE --encoder FOLDER --shots 1,2,5\n"
            "    diffclip fewshot --archive ARCHIVE --encoder none:FOLDER --shots 1,2,5"
        ),
        "Intended use": "Features of pixels for land-cover classifiers that learn from a few labelled pixels a class.",
        "Limits": (
            "It knows the sensors, places and seasons of its scenes and no others. A scene in other units or of other "
            "bands is refused unless a user insists. Features carry no class and no uncertainty."
        ),
        "Licence": LICENCE_SECTION,
        "How to load it": (
            "`config.json` and `model.safetensors` are read; no code and no pickle is.\n\n```python\n"
            "import diffclip_dist as dc\n\n"
            'encoder = dc.load_encoder("FOLDER")\n'
            'features = dc.features(dc.open_archive("ARCHIVE")["SCENE"], encoder)\n```'
        ),
    }
    write_card(
        folder,
        front_matter,
        f"Encoder of {', '.join(dict.fromkeys(schema.name for schema in config.modalities))}",
        sections,
    )


def describe_training(training: Training) -> str:
    """What an encoder learned from, as sentences."""
    if training.steps == 0:
        return "Its weights are random and learned from nothing: a control for what pretraining brings."
    scenes = ", ".join(
        plain(name) + (" (generated, no real place)" if name in training.generated_scenes else "")
        for name in training.scenes
    )
    averaged = f", averaged with decay {training.ema_decay}" if training.ema_decay else ""
    return (
        f"Pretrained for {training.steps:,} steps with seed {training.seed}{averaged}, without any label, on: "
        f"{scenes}. Fingerprint of the archive: {training.archive_fingerprint}."
    )


def modality_table(modalities: tuple[ModalitySchema, ...]) -> str:
    """Bands and wavelengths of each modality, in Markdown."""
    rows = [
        (
            schema.name,
            schema.bands,
            "unknown" if schema.wavelengths_nm is None else ", ".join(f"{nm:g}" for nm in schema.wavelengths_nm),
        )
        for schema in modalities
    ]
    return table(("Modality", "Bands", "Wavelengths, nm"), rows)
