"""Draws a scene as PNG: each modality and its valid pixels, the labels with a legend, and mean spectra."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from shards.archive.archive import Archive
from shards.errors import BadInput
from shards.preview.class_colours import class_colours
from shards.preview.overview import Overview, overview
from shards.preview.stretch import stretch_limits, stretched_colours

PANEL_INCHES = 4.2
DOTS_PER_INCH = 110
UNLABELLED, MISSING = "#ffffff", "#d9d9d9"


def write_previews(archive: Archive, folder: Path) -> tuple[Path, ...]:
    """Writes NAME.png for each scene of an archive.

    Args:
        archive: any size; scenes are read shard by shard.
        folder: created if it is absent.

    Returns:
        The files, in the order of the scenes.

    Raises:
        BadInput: the folder cannot be written.
        DamagedArchive: a chunk cannot be decoded.
    """
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for scene in archive.manifest.scenes:
            figure = draw_preview(overview(archive, scene.name))
            path = folder / f"{scene.name}.png"
            # metadata would hold matplotlib's version
            figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
            paths.append(path)
    except OSError as error:
        raise BadInput(f"{folder}: cannot be written: {error.strerror}") from error
    return tuple(paths)


def draw_preview(scene: Overview) -> Figure:
    """The picture of a scene."""
    modalities, record = list(scene.shown), scene.record
    spectral = list(scene.spectra)
    columns = len(modalities) + (scene.labels is not None)
    across = max(2, columns)
    tall = PANEL_INCHES * min(1.6, max(0.45, record.height / record.width))
    # the mask of a single modality is beside it; those of several are below
    heights = [tall] + ([tall * 0.75] if columns > 1 else []) + ([PANEL_INCHES * 0.8] if spectral else [])
    figure = Figure(figsize=(PANEL_INCHES * across, sum(heights) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(heights), across, height_ratios=heights)
    for place, name in enumerate(modalities):
        _draw_modality(figure, figure.add_subplot(grid[0, place]), scene, name)
        _draw_valid(figure.add_subplot(grid[1, place] if columns > 1 else grid[0, 1]), scene, name)
    if scene.labels is not None:
        _draw_labels(figure.add_subplot(grid[0, len(modalities)]), figure.add_subplot(grid[1, len(modalities)]), scene)
    cuts = np.linspace(0, across, len(spectral) + 1).round().astype(int)
    for name, first, last in zip(spectral, cuts, cuts[1:], strict=False):
        _draw_spectra(figure.add_subplot(grid[-1, first:last]), scene, name)
    kind = "  (generated scene: made up, not measured)" if record.generated else ""
    thinned = f", every {scene.step}th pixel shown" if scene.step > 1 else ""
    figure.suptitle(f"{record.name}{kind}\n{record.height} x {record.width} pixels{thinned}", fontsize=12)
    return figure


def _draw_modality(figure: Figure, axes: Any, scene: Overview, name: str) -> None:
    picture = scene.pictures[name]
    axes.set_title(scene.shown[name].title, fontsize=9)
    axes.set_facecolor(MISSING)
    if picture.shape[2] == 1:
        low, high = stretch_limits(picture[..., 0])
        image = axes.imshow(picture[..., 0], cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
        figure.colorbar(image, ax=axes, shrink=0.8)
    else:
        axes.imshow(stretched_colours(picture, scene.valid[name]), interpolation="nearest")
    _bare(axes)


def _draw_valid(axes: Any, scene: Overview, name: str) -> None:
    record = scene.record
    share = record.modality(name).valid_pixels / (record.height * record.width)
    axes.imshow(scene.valid[name], cmap=ListedColormap([MISSING, "#3a7d44"]), vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(f"{name}: {share:.1%} of pixels valid (green)", fontsize=9)
    _bare(axes)


def _draw_labels(axes: Any, legend_axes: Any, scene: Overview) -> None:
    assert scene.labels is not None
    classes = scene.record.classes
    colours = class_colours(classes)
    ids = [0, *classes]
    places = np.searchsorted(ids, scene.labels)
    palette = ListedColormap([UNLABELLED, *(colours[class_id] for class_id in classes)])
    axes.imshow(places, cmap=palette, vmin=0, vmax=len(ids) - 1, interpolation="nearest")
    axes.set_title("labels (white: none)", fontsize=9)
    _bare(axes, frame=True)
    shift = scene.record.class_id_shift
    handles = [
        Patch(facecolor=colours[class_id], label=f"{class_id - shift} {name}") for class_id, name in classes.items()
    ]
    columns = 1 if len(handles) <= 9 else 2
    legend_axes.legend(handles=handles, loc="center", ncols=columns, fontsize=8, frameon=False)
    legend_axes.axis("off")


def _draw_spectra(axes: Any, scene: Overview, name: str) -> None:
    modality = scene.record.modality(name)
    colours = class_colours(scene.record.classes)
    centres = modality.wavelengths_nm
    x = np.array(centres if centres is not None else range(1, modality.bands + 1), dtype=np.float64)
    mean, std = np.array(modality.mean), np.array(modality.std)
    order = np.argsort(x, kind="stable")
    order = order[~np.isin(order + 1, modality.constant_bands)]
    breaks = spectrum_breaks(x[order])

    def curve(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.insert(values[order], breaks, np.nan)

    axes.fill_between(curve(x), curve(mean - std), curve(mean + std), color="#000000", alpha=0.07, linewidth=0)
    for class_id, spectrum in scene.spectra[name].items():
        if class_id:
            axes.plot(curve(x), curve(spectrum), color=colours[class_id], linewidth=1.4)
    label = "all pixels, with one standard deviation"
    axes.plot(curve(x), curve(mean), color="#000000", linewidth=1.2, linestyle="--", label=label)
    axes.set_title(f"{name}: mean of each class" if len(scene.spectra[name]) > 1 else f"{name}: mean", fontsize=9)
    axes.set_xlabel("wavelength (nm)" if centres is not None else "band")
    axes.legend(fontsize=7, frameon=False)
    axes.tick_params(labelsize=7)


def spectrum_breaks(x: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Positions of gaps between bands, across which no line is drawn."""
    steps = np.diff(x)
    if not steps.size:
        return np.zeros(0, dtype=np.intp)
    return np.flatnonzero(steps > 4 * np.median(steps)) + 1


def _bare(axes: Any, frame: bool = False) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(frame)
        spine.set_color("#aaaaaa")
