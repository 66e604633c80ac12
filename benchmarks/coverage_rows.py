"""Measures the rows of coverage.py."""

import argparse
import itertools
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal, get_args

import numpy as np
from report import HIGHEST, LOWEST, Row, check_destination, print_table, write_json

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.feature_extraction.bands_only import FeatureEncoder
from diffclip_dist.feature_extraction.encoder_source import CONTROL, open_encoder, without_encoder
from diffclip_dist.feature_extraction.one_thread import one_thread
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.metrics import summarise
from diffclip_dist.study.experiment import Task, run_task
from shards.archive.archive import Scene
from shards.build.load_scene import load_scene
from shards.scene.source import Mask
from shards.simulate.coarse_scene import CoarseScene, CoarseSceneSpec
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

Kind = Literal["fine", "coarse"]
Cover = Literal["all", "random", "blocks"]
Labels = Literal["everywhere", "covered part"]
EncoderKind = Literal["bands alone", "random weights"]

# The modality of each kind that covers a part; the other covers all
PARTIAL: Final = {"fine": "hsi", "coarse": "vnir"}
# Side of a block in pixels: the largest that 1 % of a scene has room for
BLOCK: Final = 10
HEAD_ALONE: Final = FewshotConfig(class_priors="equal", discriminant=False)
ADAPTED: Final = FewshotConfig()


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        seeds: of the generated scenes, each of which is a place of its own.
        height: of each in pixels.
        width: of each in pixels.
        bands: of the spectrometer; the coarse scenes have 6 and 8.
        kinds: of scenes.
        encoders: that give features besides the bands.
        shares: of the scene that the modality covers.
        shots: labelled pixels a class.
        draws: of the shots, in each scene.
    """

    seeds: tuple[int, ...]
    height: int
    width: int
    bands: int
    kinds: tuple[Kind, ...]
    encoders: tuple[EncoderKind, ...]
    shares: tuple[float, ...]
    shots: tuple[int, ...]
    draws: int


QUICK: Final = Effort(
    seeds=(101,), height=64, width=64, bands=12, kinds=("fine",), encoders=("bands alone",), shares=(0.1,),
    shots=(1, 5), draws=2,
)  # fmt: skip
FULL: Final = Effort(
    seeds=(101, 102), height=80, width=96, bands=24, kinds=get_args(Kind), encoders=get_args(EncoderKind),
    shares=(0.01, 0.1, 0.5), shots=(1, 2, 5), draws=5,
)  # fmt: skip


def measure(arguments: argparse.Namespace) -> int:
    """Measures, prints the table and writes ``--json``."""
    check_destination(arguments.json)
    effort = QUICK if arguments.quick else FULL
    rows: list[Row] = []
    for kind in effort.kinds:
        scenes = [generated(kind, seed, effort) for seed in effort.seeds]
        partial: list[tuple[Cover, float, Labels]] = list(
            itertools.product(("random", "blocks"), effort.shares, get_args(Labels))
        )
        for encoder in effort.encoders:
            for cover, share, labels in [("all", 1.0, "everywhere"), *partial]:
                parts = [covered(scene, PARTIAL[kind], cover, share, labels) for scene in scenes]
                for row in measure_cover(parts, encoder, effort):
                    settings = {"scenes": kind, "features": encoder, "covered_percent": 100 * share, "places": cover}
                    rows.append({**settings, "labels": labels, **row})
    print_table("adapted to unlabelled pixels against the head alone (generated scenes)", rows)
    if arguments.json is not None:
        write_json(arguments.json, asdict(effort), rows)
    return EXIT_DONE


def generated(kind: Kind, seed: int, effort: Effort) -> Scene:
    """A generated scene: spectra and heights from the air, or two spectrometers in orbit."""
    if kind == "fine":
        spec = GeneratedSceneSpec(height=effort.height, width=effort.width, bands=effort.bands, seed=seed)
        return load_scene(GeneratedScene(spec))
    return load_scene(CoarseScene(CoarseSceneSpec(height=effort.height, width=effort.width, bands=(6, 8), seed=seed)))


def covered(scene: Scene, name: str, cover: Cover, share: float, labels: Labels) -> Scene:
    """A scene with one modality at a share of its places, the same in every call."""
    assert scene.labels is not None
    kept = _places(scene.labels.shape, cover, share)
    return replace(
        scene,
        valid={**scene.valid, name: scene.valid[name] & kept},
        labels=scene.labels * kept if labels == "covered part" else scene.labels,
    )


def measure_cover(scenes: list[Scene], encoder: EncoderKind, effort: Effort) -> list[Row]:
    """OA of both ways over scenes and draws, a row for each number of shots."""
    task = Task(effort.shots, effort.draws, "random", "scratch")
    oa: dict[int, list[tuple[float, float]]] = {shots: [] for shots in effort.shots}
    for scene in scenes:
        with one_thread():
            adapted, alone = (run_task(scene, _encoder(encoder, scene), task, way) for way in (ADAPTED, HEAD_ALONE))
        for one, other in zip(adapted.runs, alone.runs, strict=True):
            oa[one.episode.shots].append((one.scores.oa, other.scores.oa))
    rows: list[Row] = []
    for shots, pairs in oa.items():
        by_adapted, by_alone = np.array(pairs).T
        gain = summarise((by_adapted - by_alone).tolist(), (-100.0, 100.0))
        assert gain.ci95 is not None
        key = "gain_percent"
        rows.append(
            {
                "shots": shots,
                "oa_adapted_percent": float(by_adapted.mean()),
                "oa_alone_percent": float(by_alone.mean()),
                key: gain.mean,
                LOWEST + key: gain.ci95[0],
                HIGHEST + key: gain.ci95[1],
            }
        )
    return rows


def _encoder(kind: EncoderKind, scene: Scene) -> FeatureEncoder:
    opened = without_encoder(scene.record) if kind == "bands alone" else open_encoder(CONTROL, scene.record)
    return opened.encoder


def _places(shape: tuple[int, ...], cover: Cover, share: float) -> Mask:
    random = np.random.default_rng(0)
    if cover == "all":
        return np.ones(shape, np.bool_)
    if cover == "random":
        return random.random(shape) < share
    height, width = (side // BLOCK for side in shape)
    chosen = np.zeros(height * width, np.bool_)
    chosen[random.choice(height * width, max(round(share * height * width), 1), replace=False)] = True
    blocks = np.kron(chosen.reshape(height, width), np.ones((BLOCK, BLOCK), np.bool_))
    kept = np.zeros(shape, np.bool_)
    kept[: height * BLOCK, : width * BLOCK] = blocks
    return kept
