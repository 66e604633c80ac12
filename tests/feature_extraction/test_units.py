"""Which scenes are taken for scenes in other units: figures over pairs of scenes of one sensor."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from diffclip_dist.data.modality_statistics import ModalityStatistics
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.feature_extraction.band_match import match_modalities
from diffclip_dist.feature_extraction.unit_check import check_units
from shards.archive.archive import Scene
from shards.archive.manifest import ModalityRecord, SceneRecord
from shards.build.load_scene import load_scene
from shards.errors import BadInput
from shards.open_scene import open_scene
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

REAL = (
    "enmap_potsdam", "s2_dem", "rs_lsat_srtm", "muufl_crop", "samson", "idtrees_osbs", "unlabelled/aviris.yaml",
    "unlabelled/muufl.yaml",
)  # fmt: skip
LEAST_PIXELS = 60


@dataclass(frozen=True)
class Place:
    """A scene of one modality."""

    record: SceneRecord

    @property
    def modality(self) -> ModalityRecord:
        return self.record.modalities[0]

    def with_units(self, scale: float, offset: float) -> "Place":
        """The same in other units."""
        mean = tuple(scale * value + offset for value in self.modality.mean)
        changed = replace(self.modality, mean=mean, std=tuple(scale * value for value in self.modality.std))
        return Place(replace(self.record, modalities=(changed,)))


def refused(known: Place, other: Place) -> bool:
    matches = match_modalities([ModalitySchema.of(known.modality)], other.record, "it", map_bands=False)
    try:
        check_units([ModalityStatistics.of(known.modality, "known")], other.record, matches, "it")
    except BadInput:
        return True
    return False


def refused_part(places: list[Place], scale: float = 1.0, offset: float = 0.0) -> float:
    """Part of the ordered pairs of places that are refused, the second in other units."""
    pairs = itertools.permutations(places, 2)
    return float(np.mean([refused(one, two.with_units(scale, offset)) for one, two in pairs]))


def ninths(scene: Scene) -> Iterator[tuple[str, Place]]:
    """Each modality in each ninth of a scene that has enough pixels."""
    for modality in scene.record.modalities:
        values, valid = scene.values[modality.name], scene.valid[modality.name]
        heights, widths = (np.array_split(np.arange(side), 3) for side in valid.shape)
        for rows, cols in itertools.product(heights, widths):
            here = np.ix_(rows, cols)
            pixels = values[here][valid[here]].astype(np.float64)
            if len(pixels) >= LEAST_PIXELS:
                yield modality.name, place(scene.record, modality, pixels)


def place(record: SceneRecord, modality: ModalityRecord, pixels: npt.NDArray[np.float64]) -> Place:
    std = pixels.std(axis=0)
    constant = tuple(int(band) for band in np.flatnonzero(std == 0) + 1)
    changed = replace(
        modality, mean=tuple(pixels.mean(axis=0)), std=tuple(np.where(std == 0, 1.0, std)), constant_bands=constant
    )
    return Place(replace(record, modalities=(changed,)))


def unit(places: list[Place]) -> float:
    """What a reflectance of 1 is, judged by the values: 1, 255 (counts of 8 bits) or 10,000."""
    level = float(np.median(places[0].modality.mean))
    return 1.0 if level < 2 else 255.0 if level < 200 else 10_000.0


@pytest.mark.parametrize("name", REAL)
def test_real_places_of_one_sensor_pass_and_counts_do_not(shared_data: Path, name: str) -> None:
    of_modality: dict[str, list[Place]] = {}
    for modality, one in ninths(load_scene(open_scene(str(shared_data / name)))):
        of_modality.setdefault(modality, []).append(one)
    for modality, places in of_modality.items():
        tenth = 0.1 * unit(places)
        as_is, counts = refused_part(places), refused_part(places, scale=1e-4)
        added, taken = refused_part(places, offset=tenth), refused_part(places, offset=-tenth)
        print(
            f"{name} {modality}: {len(places)} places, refused: as is {as_is:.1%}, times 1/10^4 {counts:.0%}, "
            f"0.1 added {added:.0%}, 0.1 taken {taken:.0%}"
        )
        assert as_is <= 0.1
        assert counts == 1.0


def test_generated_places_pass_and_other_units_do_not() -> None:
    specs = [
        GeneratedSceneSpec(height=96, width=96, bands=16, seed=seed, relief_m=relief)
        for seed in range(6, 12)
        for relief in (8.0, 80.0)
    ]
    records = [load_scene(GeneratedScene(spec)).record for spec in specs]
    places = [Place(replace(record, modalities=record.modalities[:1])) for record in records]
    assert refused_part(places) == 0.0
    assert refused_part(places, scale=1e-4) == 1.0
    assert refused_part(places, scale=1e-2) == 1.0
    added, taken = refused_part(places, offset=1000.0), refused_part(places, offset=-1000.0)
    heights = [Place(replace(record, modalities=record.modalities[1:])) for record in records]
    print(f"generated spectra: 1000 counts added {added:.0%}, taken {taken:.0%}")
    assert min(added, taken) > 0.6
    assert refused_part(heights) == 0.0
    assert refused_part(heights, scale=1e-4) == 1.0


def test_small_generated_places_of_one_scene_pass() -> None:
    scene = load_scene(GeneratedScene(GeneratedSceneSpec(height=160, width=160, bands=16)))
    modality = scene.record.modalities[0]
    values = scene.values[modality.name].astype(np.float64)
    places = [
        place(scene.record, modality, values[top : top + 32, left : left + 32].reshape(-1, modality.bands))
        for top in range(0, 160, 32)
        for left in range(0, 160, 32)
    ]
    found = refused_part(places)
    print(f"generated places of 32 x 32 pixels: refused as they are {found:.1%} of {len(places) * (len(places) - 1)}")
    assert found <= 0.01
