"""Pictures of where labels lie on a scene: those that were learned from, and those that were tested, right or wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke

from diffclip_dist.fewshot.classifier import MappedClass
from diffclip_dist.fewshot.episodes import Pixels
from diffclip_dist.mapping.picture_layout import save_picture
from diffclip_dist.study.kept_classifier import KeptClassifier
from shards.archive.manifest import SceneRecord
from shards.preview.class_colours import rgb
from shards.preview.scene_picture import ScenePicture

# Of a picture in pixels; a larger scene is thinned
LARGEST_SIDE: Final = 1024
# Light blue and dark orange: apart under the common kinds of colour blindness, and in grey
RIGHT_COLOUR, WRONG_COLOUR = "#8ec1e8", "#c1440e"
UNTESTED_COLOUR = "#e3e3e3"
# By class, in turn, so that classes can be told apart without colours
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
# Labels up to which each has a mark of its own, and the area of a mark in square points
MOST_MARKS, LARGEST_MARK, SMALLEST_MARK, LEAST_ERROR_MARK = 2_000, 70.0, 5.0, 12.0


def draw_learned(
    file: Path, picture: ScenePicture, kept: KeptClassifier, classes: Sequence[MappedClass], record: SceneRecord
) -> None:
    """Draws the labels that a classifier learned from, on the scene.

    Args:
        file: the PNG.
        picture: the scene.
        kept: the classifier.
        classes: what the legend names, each with its number of labels.
        record: the scene's.
    """
    pixels = kept.learned
    area = _mark_area(len(pixels))
    marks = {one.class_id: MARKERS[place % len(MARKERS)] for place, one in enumerate(classes)}
    edge = min(0.9, area**0.5 / 6)
    # a black edge in a white rim shows on any background
    rim = [Stroke(linewidth=edge + 1.6, foreground="white"), Normal()] if len(pixels) <= MOST_MARKS else []

    def draw(axes: Any) -> None:
        axes.set_facecolor(UNTESTED_COLOUR)
        axes.imshow(picture.colours, interpolation="nearest", aspect="equal")
        for one in classes:
            chosen = pixels.class_ids == one.class_id
            x, y = (positions[chosen] / picture.step for positions in (pixels.cols, pixels.rows))
            axes.scatter(
                x,
                y,
                area,
                one.colour,
                marker=marks[one.class_id],
                edgecolors="black",
                linewidths=edge,
                path_effects=rim,
            )

    counts = {one.class_id: int(np.count_nonzero(pixels.class_ids == one.class_id)) for one in classes}
    legend = [
        Line2D(
            [], [], linestyle="none", marker=marks[one.class_id], markersize=7, markerfacecolor=one.colour,
            markeredgecolor="black", markeredgewidth=0.7, label=f"{one.name}  {counts[one.class_id]:,}",
        )
        for one in classes
    ]  # fmt: skip
    height, width = picture.colours.shape[:2]
    title = f"{record.name}: labels learned from"
    save_picture(file, (height, width), draw, legend, title, f"{kept.title}; {_shown(picture)}", record.generated)


def draw_errors(file: Path, picture: ScenePicture, kept: KeptClassifier, record: SceneRecord) -> None:
    """Draws where tested labels were right and where wrong, on the scene in light grey.

    Few labels have a mark each. Of many, a pixel of the picture shows those that it stands for: it is wrong where at
    least half of them are.

    Args:
        file: the PNG.
        picture: the scene.
        kept: the classifier.
        record: the scene's.
    """
    tested, right = kept.tested, kept.right
    few = len(tested) <= MOST_MARKS
    area = max(_mark_area(len(tested)) / 2, LEAST_ERROR_MARK)

    def draw(axes: Any) -> None:
        axes.imshow(_greyed(picture.colours), interpolation="nearest", aspect="equal")
        if few:
            for chosen, colour, mark in ((right, RIGHT_COLOUR, "o"), (~right, WRONG_COLOUR, "X")):
                x, y = (positions[chosen] / picture.step for positions in (tested.cols, tested.rows))
                axes.scatter(x, y, area, colour, marker=mark, edgecolors="black", linewidths=0.3)
        else:
            axes.imshow(_error_grid(picture, tested, right), interpolation="nearest", aspect="equal")

    total, correct = len(right), int(np.count_nonzero(right))
    legend = [
        Patch(facecolor=colour, edgecolor="#666666", linewidth=0.4, label=label)
        for colour, label in (
            (RIGHT_COLOUR, f"right  {correct / total:.1%} ({correct:,})"),
            (WRONG_COLOUR, f"wrong  {1 - correct / total:.1%} ({total - correct:,})"),
            (UNTESTED_COLOUR, "not tested"),
        )
    ]
    note = "" if few or picture.step == 1 else f"; a dot stands for {picture.step} x {picture.step} pixels"
    height, width = picture.colours.shape[:2]
    title = f"{record.name}: right and wrong"
    save_picture(file, (height, width), draw, legend, title, f"tested labels, {kept.title}{note}", record.generated)


def _mark_area(count: int) -> float:
    """Square points of each of so many marks."""
    return float(np.clip(3_500 / max(count, 1), SMALLEST_MARK, LARGEST_MARK))


def _greyed(colours: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The scene in light grey, so that what is drawn over it stands out."""
    grey = 0.62 + 0.33 * colours[..., :3].mean(axis=2)
    return np.where(colours[..., 3] > 0, grey, 1.0)[..., None].repeat(3, axis=2)


def _error_grid(picture: ScenePicture, tested: Pixels, right: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Red, green, blue and opacity of each pixel of the picture (row, col, 4); transparent where none was tested."""
    shape = picture.colours.shape[:2]
    places = tested.rows // picture.step * shape[1] + tested.cols // picture.step
    correct, wrong = (np.bincount(places[chosen], minlength=shape[0] * shape[1]) for chosen in (right, ~right))
    grid = np.zeros((shape[0] * shape[1], 4), np.float32)
    for chosen, colour in (((correct > wrong), RIGHT_COLOUR), ((wrong >= correct) & (wrong > 0), WRONG_COLOUR)):
        grid[chosen, :3] = np.array(rgb(colour)) / 255
        grid[chosen, 3] = 1.0
    return grid.reshape(*shape, 4)


def _shown(picture: ScenePicture) -> str:
    thinned = "" if picture.step == 1 else f", one pixel of {picture.step} x {picture.step} shown"
    return f"{picture.title}{thinned}"
