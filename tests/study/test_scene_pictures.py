"""What a report draws on a scene: labels learned from, tested labels, right and wrong, and scenes of any size."""

from pathlib import Path

import matplotlib.image
import numpy as np
import numpy.typing as npt
import pytest
from small_study import HEIGHT, WIDTH, build, write_small_scene

from diffclip_dist.fewshot.classifier import MappedClass
from diffclip_dist.fewshot.episodes import Pixels
from diffclip_dist.study.kept_classifier import KeptClassifier
from diffclip_dist.study.reference_map import thinned_classes
from diffclip_dist.study.scene_pictures import (
    RIGHT_COLOUR,
    WRONG_COLOUR,
    draw_errors,
    draw_learned,
)
from shards.archive.archive import Archive
from shards.preview.class_colours import rgb
from shards.preview.scene_picture import ScenePicture, scene_picture

CLASSES = [MappedClass(1, "roof", "#d1453b"), MappedClass(2, "tree", "#1f6b35")]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    folder = tmp_path_factory.mktemp("archive")
    return build([str(write_small_scene(folder / "town", "town"))], folder / "built")


def kept(learned: Pixels, tested: Pixels, right: npt.NDArray[np.bool_]) -> KeptClassifier:
    """Only what the pictures show."""
    return KeptClassifier("2 shots", "2 labelled pixels a class", "2shot", "model-2shot", None, learned, tested, right,
                          {}, {}, np.zeros((2, 2), np.int64), None, None, np.zeros((1, 1), np.uint8))  # type: ignore[arg-type]  # fmt: skip


def pixels(*places: tuple[int, int, int]) -> Pixels:
    rows, cols, class_ids = np.array(places, dtype=np.int64).reshape(-1, 3).T
    return Pixels(rows, cols, class_ids)


def blank(shape: tuple[int, int], step: int = 1) -> ScenePicture:
    """A picture without data, which is drawn white."""
    return ScenePicture(step, "nothing", np.zeros((*shape, 4), np.float32))


def drawn(file: Path, colour: str) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], tuple[int, ...]]:
    """Rows and columns of the picture's pixels of a colour, left of the legend, and its shape."""
    picture = (matplotlib.image.imread(file)[..., :3] * 255).round()
    left = picture[:, : int(8.1 * 150)]
    rows, cols = np.nonzero(np.abs(left - rgb(colour)).max(axis=2) < 2)
    return rows, cols, picture.shape


def test_labels_are_drawn_where_they_lie_in_their_classs_colour(archive: Archive, tmp_path: Path) -> None:
    # far apart: roof at the upper left, tree at the lower right of a picture of 100 x 100 pixels of 3 x 3 each
    labels = pixels((30, 30, 1), (270, 270, 2))
    one = kept(labels, labels, np.array([True, True]))
    draw_learned(tmp_path / "labels.png", blank((100, 100), step=3), one, CLASSES, archive.scene("town"))
    for known, share in zip(CLASSES, (0.1, 0.9), strict=True):
        rows, cols, _ = drawn(tmp_path / "labels.png", known.colour)
        assert len(rows) > 50
        # the scene is 8 inches wide, and begins 0.15 inches from the left
        assert np.median(cols) == pytest.approx((0.15 + 8 * share) * 150, abs=8)
        assert np.ptp(rows) < 60


def test_right_and_wrong_labels_have_their_colours_in_their_shares(archive: Archive, tmp_path: Path) -> None:
    grid = np.indices((100, 100)).reshape(2, -1)
    tested = Pixels(grid[0], grid[1], np.ones(10_000, np.int64))
    right = tested.cols < 75
    one = kept(pixels((0, 0, 1)), tested, right)
    draw_errors(tmp_path / "errors.png", blank((100, 100)), one, archive.scene("town"))
    counts = [len(drawn(tmp_path / "errors.png", colour)[0]) for colour in (RIGHT_COLOUR, WRONG_COLOUR)]
    assert counts[0] / sum(counts) == pytest.approx(0.75, abs=0.01)
    _, cols, _ = drawn(tmp_path / "errors.png", WRONG_COLOUR)
    assert cols.min() > (0.15 + 8 * 0.74) * 150


def test_a_dot_of_a_thinned_scene_is_wrong_where_half_of_its_labels_are(archive: Archive, tmp_path: Path) -> None:
    grid = np.indices((200, 200)).reshape(2, -1)
    tested = Pixels(grid[0], grid[1], np.ones(40_000, np.int64))
    # of each 2 x 2 pixels one is wrong in the upper half and two are in the lower half
    wrong = (tested.rows % 2 == 0) & ((tested.rows >= 100) | (tested.cols % 2 == 0))
    draw_errors(
        tmp_path / "errors.png", blank((100, 100), 2), kept(pixels((0, 0, 1)), tested, ~wrong), archive.scene("town")
    )
    right_rows, _, _ = drawn(tmp_path / "errors.png", RIGHT_COLOUR)
    wrong_rows, _, _ = drawn(tmp_path / "errors.png", WRONG_COLOUR)
    assert right_rows.max() <= wrong_rows.min()
    assert len(right_rows) == pytest.approx(len(wrong_rows), rel=0.02)


def test_few_tested_labels_are_marked_so_that_they_can_be_seen(archive: Archive, tmp_path: Path) -> None:
    tested = pixels((100, 100, 1), (900, 900, 1))
    one = kept(tested, tested, np.array([True, False]))
    draw_errors(tmp_path / "errors.png", blank((1000, 1000)), one, archive.scene("town"))
    for colour in (RIGHT_COLOUR, WRONG_COLOUR):
        assert len(drawn(tmp_path / "errors.png", colour)[0]) > 40


def test_a_scene_in_parts_gives_the_picture_of_the_whole_scene(archive: Archive) -> None:
    stored, whole = archive["town"], archive.read_scene("town")
    for side in (100, 20, 7):
        one, other = scene_picture(stored, side), scene_picture(whole, side)
        assert max(one.colours.shape[:2]) <= side
        assert one.step == other.step == -(-HEIGHT // side)
        assert np.array_equal(one.colours, other.colours)
    assert np.array_equal(scene_picture(stored, 20).colours[..., 3] > 0, whole.valid["hsi"][::3, ::3])
    assert scene_picture(stored, 100).colours.shape == (HEIGHT, WIDTH, 4)


def test_thinning_keeps_labels_that_lie_alone() -> None:
    class_map = np.zeros((1000, 700), np.uint8)
    class_map[501, 333], class_map[999, 699] = 4, 7
    thinned = thinned_classes(class_map, 16)
    assert thinned.shape == (63, 44)
    assert sorted(thinned[thinned > 0].tolist()) == [4, 7]
    assert thinned[501 // 16, 333 // 16] == 4
    assert class_map[::16, ::16].max() == 0  # and the map that was given is as it was
    assert np.array_equal(thinned_classes(class_map, 1), class_map)
