"""Class names tell pixels by physics, on any sensor, and say so where they cannot."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffclip_dist.words.class_name import ClassName
from diffclip_dist.words.name_classifier import NameClassifier
from diffclip_dist.words.spectral_library import GRID_NM, read_library
from diffclip_dist.words.water_spectra import water_reflectance
from diffclip_dist.words.words_config import WordsConfig
from diffclip_dist.words.words_unavailable import WordsUnavailable
from shards.archive.archive import Scene
from shards.build.load_scene import load_scene
from shards.scene.array_scene import ArrayScene
from shards.scene.sensors import SENSORS as SENSORS_OF_SCENES

# fewer steps than by default, to be fast
FAST = WordsConfig(draws=100, steps=120, batch=256, networks=1)
SENTINEL2 = (443.0, 492.0, 560.0, 665.0, 704.0, 741.0, 783.0, 833.0, 865.0, 945.0, 1374.0, 1614.0, 2202.0)
SENSORS = {
    "sentinel2": SENTINEL2,
    "landsat8": (443.0, 482.0, 561.0, 655.0, 865.0, 1609.0, 2201.0),
    "four bands": (485.0, 560.0, 660.0, 830.0),
    "visible spectrometer": tuple(np.linspace(400.0, 900.0, 80)),
    "full spectrometer": tuple(np.linspace(420.0, 2450.0, 200)),
}
NAMES = ("water", "grass", "bare soil")


def _ground(kinds: Sequence[str], random: np.random.Generator, count: int) -> np.ndarray:
    """Spectra (count, wavelength) of each kind, one after another, on the library's grid."""
    library = read_library()
    parts = []
    for kind in kinds:
        if kind == "water":
            low, high = np.ones(count) * 0.5, random.uniform(0.3, 3.0, count)
            parts.append(water_reflectance(GRID_NM, high, high, low, np.full(count, 0.005)))
        else:
            pool = library.of(("canopy",), (3.0, 6.0)) if kind == "grass" else library.of(("soil",))
            parts.append(pool[random.integers(0, len(pool), count)])
    return np.concatenate(parts)


def _scene(wavelengths: Sequence[float] | None, scale: float = 1.0) -> Scene:
    """A generated scene of 16 x 48 pixels, a third of it of each kind, without labels."""
    random = np.random.default_rng(5)
    spectra = _ground(NAMES, random, 256)
    nm = np.array(SENTINEL2 if wavelengths is None else wavelengths)
    values = np.stack([np.interp(nm, GRID_NM, one) for one in spectra]) * random.uniform(0.8, 1.2, (768, 1))
    values = (values * scale).reshape(48, 16, len(nm)).transpose(1, 0, 2).astype(np.float32)
    known = {} if wavelengths is None else {"spectra": tuple(wavelengths)}
    return load_scene(ArrayScene("generated", {"spectra": values}, known, generated=True))


def _values(scene: Scene) -> dict[str, torch.Tensor]:
    values = scene.values["spectra"]
    return {"spectra": torch.from_numpy(values.reshape(-1, values.shape[-1]))}


def _classes(names: Sequence[str] = NAMES) -> list[ClassName]:
    return [ClassName(name) for name in names]


@pytest.fixture(scope="module")
def scene() -> Scene:
    return _scene(SENTINEL2)


@pytest.fixture(scope="module")
def classifier(scene: Scene) -> NameClassifier:
    return NameClassifier.fit(scene, _classes(), FAST)


@pytest.mark.parametrize("sensor", SENSORS)
def test_water_is_found_by_its_name_at_any_sensor(sensor: str) -> None:
    scene = _scene(SENSORS[sensor])
    classifier = NameClassifier.fit(scene, _classes(), FAST)
    found = classifier.log_probabilities(_values(scene)).argmax(dim=1).reshape(16, 48)
    assert (found[:, :16] == 0).float().mean() > 0.95
    assert (found[:, 16:] == 0).float().mean() < 0.05


@pytest.mark.parametrize("scale", [100.0, 10000.0])
def test_reflectance_is_known_in_per_cent_and_in_ten_thousandths(
    scale: float, scene: Scene, classifier: NameClassifier
) -> None:
    scaled = _scene(SENTINEL2, scale)
    found = NameClassifier.fit(scaled, _classes(), FAST).log_probabilities(_values(scaled)).argmax(dim=1)
    assert (found == classifier.log_probabilities(_values(scene)).argmax(dim=1)).float().mean() > 0.99


def test_a_scene_without_wavelengths_is_told_in_one_line() -> None:
    with pytest.raises(WordsUnavailable, match="wavelengths") as told:
        NameClassifier.fit(_scene(None), _classes(), FAST)
    assert "\n" not in str(told.value)


def test_values_that_are_no_reflectance_are_told() -> None:
    with pytest.raises(WordsUnavailable, match=r"spectra: .*no reflectance"):
        NameClassifier.fit(_scene(SENTINEL2, scale=1e7), _classes(), FAST)


def test_the_same_scene_gives_the_same_probabilities_and_a_saved_classifier_too(
    scene: Scene, classifier: NameClassifier
) -> None:
    expected = classifier.log_probabilities(_values(scene))
    again = NameClassifier.fit(scene, _classes(), FAST)
    assert torch.equal(expected, again.log_probabilities(_values(scene)))
    loaded = NameClassifier.from_settings(json.loads(json.dumps(classifier.settings())))
    loaded.load_state_dict(classifier.state_dict())
    assert torch.equal(expected, loaded.log_probabilities(_values(scene)))
    assert loaded.matches == classifier.matches


def test_probabilities_are_finite_and_say_nothing_where_a_pixel_has_no_data(classifier: NameClassifier) -> None:
    values = torch.full((2, len(SENTINEL2)), torch.nan)
    values[1] = -5.0
    logs = classifier.log_probabilities({"spectra": values})
    assert logs.dtype == torch.float32
    assert torch.isfinite(logs).all()
    assert torch.allclose(logs[0], torch.full((3,), 1 / 3).log())


def test_an_unknown_name_says_nothing(scene: Scene, classifier: NameClassifier) -> None:
    more = classifier.with_classes(_classes((*NAMES, "quarterly revenue")))
    assert [match.known for match in more.matches] == [True, True, True, False]
    logs = more.log_probabilities(_values(scene))
    assert torch.allclose(logs[:, 3], logs[:, :3].mean(dim=1), atol=1e-5)


def test_names_may_be_left_out_and_added_without_training_again(scene: Scene, classifier: NameClassifier) -> None:
    fewer = classifier.with_classes(_classes(NAMES[:2])).for_scene(scene)
    assert fewer.log_probabilities(_values(scene)).shape == (768, 2)
    again = fewer.with_classes(_classes()).for_scene(scene)
    assert torch.allclose(again.log_probabilities(_values(scene)), classifier.log_probabilities(_values(scene)))


def test_another_scenes_haze_is_estimated_there(scene: Scene, classifier: NameClassifier) -> None:
    """Haze that falls with wavelength is taken off; with the first scene's haze, water would be lost."""
    haze = (0.06 * (np.array(SENTINEL2) / 550.0) ** -3).astype(np.float32)
    hazy = replace(scene, values={"spectra": scene.values["spectra"] + haze})
    logs = classifier.for_scene(hazy).log_probabilities(_values(hazy)).argmax(dim=1)
    assert (logs == classifier.log_probabilities(_values(scene)).argmax(dim=1)).float().mean() > 0.95


def _with_heights(scene: Scene, heights: np.ndarray, marked: bool) -> Scene:
    """The scene with a surface model, `heights` (row, col) in metres, on a slope of one in ten."""
    surface = (heights + 100.0 + np.arange(48) / 10)[..., None].astype(np.float32)
    source = ArrayScene("generated", {**scene.values, "dsm": surface}, {"spectra": SENTINEL2}, generated=True)
    both = load_scene(source)
    records = tuple(replace(one, surface_height=marked and one.name == "dsm") for one in both.record.modalities)
    return replace(both, record=replace(both.record, modalities=records))


def test_a_marked_surface_model_tells_trees_from_grass_on_a_slope_and_an_unmarked_one_does_nothing() -> None:
    flat = _scene(SENTINEL2)
    heights = np.zeros((16, 48))
    heights[:8, 16:32] = 12.0  # the upper half of the grass stands twelve metres high
    scene, unmarked = (_with_heights(flat, heights, marked) for marked in (True, False))
    classes = _classes(("water", "tree", "grass", "bare soil"))
    classifier = NameClassifier.fit(scene, classes, FAST)
    assert classifier.modalities == ("spectra", "dsm")
    values = {**_values(scene), "dsm": torch.from_numpy(scene.values["dsm"].reshape(-1, 1))}
    rows, cols = (torch.from_numpy(places.ravel()) for places in np.indices((16, 48)))
    logs = classifier.log_probabilities(values, rows, cols)
    found = logs.argmax(dim=1).reshape(16, 48)[:, 16:32]
    assert (found[:8] == 1).float().mean() > 0.9
    # by their spectra alone the two are one and the same
    assert (found[8:] == 2).float().mean() > 0.75
    loaded = NameClassifier.from_settings(json.loads(json.dumps(classifier.settings())))
    loaded.load_state_dict(classifier.state_dict())
    assert torch.equal(loaded.log_probabilities(values, rows, cols), logs)

    plain = NameClassifier.fit(unmarked, classes, FAST)
    assert plain.modalities == ("spectra",)


def test_counts_of_a_known_sensor_become_reflectance() -> None:
    """Eight-bit counts differ in scale from band to band; without the sensor's calibration soil would look blue."""
    tm = (485.0, 560.0, 660.0, 830.0, 1650.0, 2215.0)
    scene = _scene(tm)
    calibration = SENSORS_OF_SCENES["landsat5"].counts
    assert calibration is not None
    bands = [0, 1, 2, 3, 4, 6]
    scale, offset = np.array(calibration.scale)[bands], np.array(calibration.offset)[bands]
    counts = np.clip(np.round((0.8 * scene.values["spectra"] - offset) / scale), 0, 255).astype(np.float32)
    raw = load_scene(ArrayScene("counts", {"spectra": counts}, {"spectra": tm}, generated=True))
    records = tuple(replace(one, sensor="landsat5") for one in raw.record.modalities)
    raw = replace(raw, record=replace(raw.record, modalities=records))
    found = NameClassifier.fit(raw, _classes(), FAST).log_probabilities(_values(raw)).argmax(dim=1).reshape(16, 48)
    for kind in range(3):
        assert (found[:, 16 * kind : 16 * kind + 16] == kind).float().mean() > 0.85
