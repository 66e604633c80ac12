"""The generated scene from far away: the same bytes however it is read, mixed pixels, and broad classes."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import BadInput
from shards.open_scene import open_scene
from shards.simulate.coarse_scene import CoarseScene, CoarseSceneSpec
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

ALL = slice(None)
SMALL = CoarseScene(CoarseSceneSpec(height=21, width=19, cell=4, bands=(3, 4)))


@pytest.fixture(scope="module")
def whole() -> dict[str, np.ndarray]:
    return {modality.name: SMALL.read(modality.name, ALL, ALL)[0] for modality in SMALL.modalities}


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_block_holds_the_same_bytes_as_the_whole(data: st.DataObject, whole: dict[str, np.ndarray]) -> None:
    top, bottom = sorted(data.draw(st.tuples(st.integers(0, 21), st.integers(0, 21))))
    left, right = sorted(data.draw(st.tuples(st.integers(0, 19), st.integers(0, 19))))
    rows, cols = slice(top, bottom), slice(left, right)
    for name, values in whole.items():
        block, valid = SMALL.read(name, rows, cols)
        assert block.tobytes() == values[rows, cols].tobytes()
        assert valid.shape == block.shape[:2]
        assert valid.all()
    assert np.array_equal(SMALL.read_labels(rows, cols), SMALL.read_labels(ALL, ALL)[rows, cols])
    assert all(not part.any() and part.shape == block.shape[:2] for part in SMALL.read_split(rows, cols))


def test_a_pixel_is_the_mean_of_the_fine_pixels_that_it_covers() -> None:
    spec = CoarseSceneSpec(height=12, width=12, cell=4, bands=(3, 4), noise=0.0)
    seen = CoarseScene(spec).read("vnir", ALL, ALL)[0].astype(float)
    fine = GeneratedScene(
        GeneratedSceneSpec(height=48, width=48, bands=3, first_nm=420.0, last_nm=990.0, seed=spec.seed, noise=0.0)
    )
    means = fine.read("hsi", ALL, ALL)[0].reshape(12, 4, 12, 4, 3).mean(axis=(1, 3))
    # the optics blur over neighbours, so a pixel is close to its own mean and the whole has the same mean
    assert np.corrcoef(seen.ravel(), means.ravel())[0, 1] > 0.98
    assert seen.mean() == pytest.approx(means.mean(), rel=0.01)


def test_neighbours_are_more_alike_than_pixels_farther_apart_as_mixed_pixels_are() -> None:
    near_over_far = {}
    for name, modality in (("synthetic-coarse", "vnir"), ("synthetic", "hsi")):
        values = open_scene(name).read(modality, slice(0, 60), slice(0, 60))[0].astype(float)
        values = (values - values.mean(axis=(0, 1))) / values.std(axis=(0, 1))
        apart = [np.quantile(np.square(values[:, step:] - values[:, :-step]).sum(axis=2), 0.1) for step in (1, 2)]
        near_over_far[name] = apart[0] / apart[1]
    assert near_over_far["synthetic-coarse"] < 0.6
    assert near_over_far["synthetic"] > 0.8


def test_the_preset_has_seven_classes_each_with_more_pixels_than_the_most_shots() -> None:
    scene = open_scene("synthetic-coarse")
    assert scene.generated
    assert scene.classes is not None
    counts = np.bincount(scene.read_labels(ALL, ALL).ravel(), minlength=8)
    assert sorted(scene.classes.names) == list(range(1, 8))
    assert counts[1:].min() > 2 * 20


@pytest.mark.parametrize(
    ("change", "named"),
    [({"cell": 0}, "cell"), ({"bands": (3, 0)}, "bands"), ({"noise": -0.1}, "noise"), ({"purity": 1.5}, "purity")],
)
def test_a_specification_out_of_range_is_refused_by_name(change: dict[str, object], named: str) -> None:
    with pytest.raises(BadInput, match=rf"synthetic-coarse: {named}: expected"):
        dataclasses.replace(CoarseSceneSpec(), **change)


def test_an_unknown_modality_is_refused() -> None:
    with pytest.raises(BadInput, match="expected vnir or swir"):
        SMALL.read("hsi", ALL, ALL)
