"""The generated scene: the same bytes however it is read, the classes it promises, and bounded memory."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import BadInput
from shards.simulate.generated_scene import PRESETS, GeneratedScene, GeneratedSceneSpec, generated_scene
from shards.simulate.spectra import MATERIALS, reflectance

ALL = slice(None)
SMALL = GeneratedScene(GeneratedSceneSpec(height=83, width=71, bands=9))


@pytest.fixture(scope="module")
def whole() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {modality.name: SMALL.read(modality.name, ALL, ALL) for modality in SMALL.modalities}


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_block_holds_the_same_bytes_as_the_whole(data: st.DataObject, whole: dict[str, tuple]) -> None:
    top, bottom = sorted(data.draw(st.tuples(st.integers(0, 83), st.integers(0, 83))))
    left, right = sorted(data.draw(st.tuples(st.integers(0, 71), st.integers(0, 71))))
    rows, cols = slice(top, bottom), slice(left, right)
    for name, (values, valid) in whole.items():
        block, block_valid = SMALL.read(name, rows, cols)
        assert block.tobytes() == values[rows, cols].tobytes()
        assert np.array_equal(block_valid, valid[rows, cols])
    assert np.array_equal(SMALL.read_labels(rows, cols), SMALL.read_labels(ALL, ALL)[rows, cols])


def test_a_larger_scene_continues_a_smaller_one(whole: dict[str, tuple]) -> None:
    larger = GeneratedScene(dataclasses.replace(SMALL.spec, height=190, width=130))
    for name, (values, valid) in whole.items():
        more, more_valid = larger.read(name, ALL, ALL)
        assert more[:83, :71].tobytes() == values.tobytes()
        assert np.array_equal(more_valid[:83, :71], valid)


def test_reading_is_repeatable_and_the_seed_matters() -> None:
    other = GeneratedScene(dataclasses.replace(SMALL.spec, seed=SMALL.spec.seed + 1))
    first = SMALL.read("hsi", ALL, ALL)[0]
    assert first.tobytes() == GeneratedScene(SMALL.spec).read("hsi", ALL, ALL)[0].tobytes()
    assert (first != other.read("hsi", ALL, ALL)[0]).mean() > 0.9
    assert (SMALL.read_labels(ALL, ALL) != other.read_labels(ALL, ALL)).mean() > 0.3


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_fifteen_described_classes_each_with_more_pixels_than_the_most_shots(name: str) -> None:
    scene = generated_scene(name)
    assert scene.generated
    assert sorted(scene.classes.names) == list(range(1, 16))
    assert scene.classes.descriptions.keys() == scene.classes.names.keys()
    labels = scene.read_labels(ALL, ALL)
    counts = np.bincount(labels.ravel(), minlength=16)
    assert counts[1:].min() > 2 * 20
    assert 0.25 < (labels > 0).mean() < 0.75


@pytest.mark.parametrize("seed", range(8))
def test_any_seed_shows_every_class(seed: int) -> None:
    scene = GeneratedScene(dataclasses.replace(PRESETS["synthetic"], seed=seed))
    assert np.bincount(scene.read_labels(ALL, ALL).ravel(), minlength=16)[1:].min() > 20


def test_the_modalities_are_what_the_values_are() -> None:
    scene = generated_scene("synthetic")
    for modality in scene.modalities:
        values, valid = scene.read(modality.name, slice(0, 20), slice(0, 30))
        assert values.shape == (20, 30, modality.bands)
        assert values.dtype == modality.dtype
        assert valid.shape == (20, 30)
    hsi = scene.modalities[0]
    assert hsi.wavelengths_nm is not None
    assert len(hsi.wavelengths_nm) == hsi.bands == 64
    assert (hsi.wavelengths_nm[0], hsi.wavelengths_nm[-1]) == (400.0, 2500.0)


def test_the_height_has_holes_under_every_land_cover_and_the_spectrometer_has_none() -> None:
    scene = GeneratedScene(dataclasses.replace(PRESETS["synthetic"], height=400, width=400, labelled=1.0))
    height, valid = scene.read("height", ALL, ALL)
    assert 0.02 < 1 - valid.mean() < 0.2
    assert np.array_equal(np.isnan(height[..., 0]), ~valid)
    labels = scene.read_labels(ALL, ALL)
    assert set(np.unique(labels[~valid])) == set(range(1, 16))
    assert scene.read("hsi", ALL, ALL)[1].all()


def _class_means(scene: GeneratedScene, modality: str) -> dict[str, np.ndarray]:
    values, valid = scene.read(modality, ALL, ALL)
    labels = scene.read_labels(ALL, ALL)
    return {name: values[(labels == i) & valid].mean(axis=0) for i, name in scene.classes.names.items()}


def test_trees_and_buildings_stand_up_and_vegetation_has_a_red_edge() -> None:
    scene = GeneratedScene(dataclasses.replace(PRESETS["synthetic"], height=300, width=300))
    height = _class_means(scene, "height")
    ground = max(height[name][0] for name in ("healthy grass", "road", "concrete pavement", "water"))
    for name in ("broadleaf trees", "coniferous trees", "tile roof", "metal roof", "bitumen roof"):
        assert height[name][0] > ground + 3

    nm = np.asarray(scene.modalities[0].wavelengths_nm)
    red, infrared, water_band = (int(np.abs(nm - place).argmin()) for place in (670, 860, 1450))
    spectra = {name: mean / 10_000 for name, mean in _class_means(scene, "hsi").items()}
    for name in ("healthy grass", "broadleaf trees", "coniferous trees", "crops", "shrubs"):
        assert spectra[name][infrared] > 2.5 * spectra[name][red]
        assert spectra[name][water_band] < 0.7 * spectra[name][infrared]
    assert spectra["road"][infrared] < 1.7 * spectra["road"][red]
    assert spectra["water"].max() < 0.12


def test_in_the_hard_scene_a_road_and_a_bitumen_roof_differ_more_in_height_than_in_spectrum() -> None:
    scene = generated_scene("synthetic-hard")
    labels = scene.read_labels(ALL, ALL)
    ids = {name: i for i, name in scene.classes.names.items()}

    def separation(modality: str) -> float:
        """Distance of the two class means in units of the spread within the classes; the best band's."""
        values, valid = scene.read(modality, ALL, ALL)
        road, roof = (values[(labels == ids[name]) & valid].astype(float) for name in ("road", "bitumen roof"))
        spread = np.sqrt(0.5 * (road.var(axis=0) + roof.var(axis=0)))
        return float((np.abs(road.mean(axis=0) - roof.mean(axis=0)) / spread).max())

    assert separation("height") > 2 * separation("hsi")
    counts = np.bincount(labels.ravel())[1:]
    assert counts.max() > 10 * counts.min()


@pytest.mark.parametrize(("rows", "cols"), [(slice(5000, 5064), slice(5000, 5064)), (slice(0, 64), slice(0, 4096))])
def test_the_memory_of_a_read_is_what_it_returns_and_a_constant(rows: slice, cols: slice) -> None:
    scene = GeneratedScene(dataclasses.replace(PRESETS["synthetic"], height=6000, width=6000))
    scene.read("hsi", slice(0, 8), slice(0, 8))
    tracemalloc.start()
    values, _ = scene.read("hsi", rows, cols)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert values.shape == (rows.stop - rows.start, cols.stop - cols.start, 64)
    assert peak < values.nbytes + 64e6


def test_reading_beyond_the_edge_stops_there_as_arrays_do() -> None:
    values, valid = SMALL.read("height", slice(80, 200), slice(70, 90))
    assert values.shape == (3, 1, 1)
    assert valid.shape == (3, 1)
    assert SMALL.read_labels(slice(90, 99), ALL).shape == (0, 71)
    train, test = SMALL.read_split(slice(0, 4), slice(0, 5))
    assert train.shape == test.shape == (4, 5)
    assert not train.any()
    assert not test.any()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"height": 0}, "height"),
        ({"bands": -1}, "bands"),
        ({"overlap": 1.5}, "overlap"),
        ({"first_nm": 200.0}, "first_nm"),
        ({"last_nm": 399.0}, "last_nm"),
        ({"noise": -0.1}, "noise"),
    ],
)
def test_a_specification_out_of_range_is_refused_by_name(change: dict[str, float], named: str) -> None:
    with pytest.raises(BadInput, match=rf"synthetic: .*{named}.*expected"):
        dataclasses.replace(GeneratedSceneSpec(), **change)


def test_unknown_scenes_and_modalities_are_refused() -> None:
    with pytest.raises(BadInput, match="expected one of synthetic, synthetic-hard, synthetic-vnir"):
        generated_scene("houston")
    with pytest.raises(BadInput, match="expected hsi or height"):
        SMALL.read("lidar", ALL, ALL)


def test_material_spectra_are_reflectances_and_do_not_depend_on_the_other_bands() -> None:
    nm = tuple(np.linspace(400, 2500, 30))
    curves = reflectance(tuple(MATERIALS), nm)
    assert curves.shape == (len(MATERIALS), 30)
    assert curves.min() >= 0
    assert curves.max() < 0.7
    assert np.array_equal(reflectance(tuple(MATERIALS), nm[::3]), curves[:, ::3])
