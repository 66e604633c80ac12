"""Draws reconstructed windows: true, masked and reconstructed, their spectra, and the skill at each noise level.

Shapes: B windows, N tokens of a window, C bands, H rows and W columns of the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib.image
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.reconstruction_error import Errors, ModalityErrors, window_means
from diffclip_dist.model.sampling import ReverseChain
from shards.archive.manifest import ModalityRecord, SceneRecord
from shards.archive.publish import publish_file
from shards.preview.overview import shown_bands
from shards.preview.preview import spectrum_breaks

MOST_WINDOWS: Final = 4
COLUMN_INCHES, IMAGE_INCHES, SPECTRUM_INCHES, SKILL_INCHES, HEAD_INCHES = 2.0, 1.45, 1.6, 2.3, 0.9
TITLE_INCHES: Final = 0.5
DOTS_PER_INCH: Final = 110
MASKED, MISSING, MARK = "#f2dcc2", "#ffffff", "#d1453b"
TRUE, SAID, GUESS = "#000000", "#d1453b", "#8a8a8a"
STRETCH: Final = 2.0  # percent of the true values beyond either end of a colour's scale


@dataclass(frozen=True)
class DrawnChain:
    """One sensor combination's part of a picture.

    Attributes:
        batch: the windows.
        chain: their reconstruction.
        errors: of each modality.
        scenes: the scene that each window comes from.
    """

    batch: WindowBatch
    chain: ReverseChain
    errors: tuple[ModalityErrors, ...]
    scenes: tuple[SceneRecord, ...]


def draw_reconstruction(chains: Sequence[DrawnChain], step: int) -> Figure:
    """Draws a block of windows for each modality, and below them the skill along the chain.

    Args:
        chains: one a sensor combination; at most four windows of each are drawn, those with the most modalities.
        step: of the run that the weights come from.
    """
    blocks = [(chain, error) for chain in chains for error in chain.errors]
    heights = [
        TITLE_INCHES + 3 * IMAGE_INCHES + (SPECTRUM_INCHES if len(error.bands) > 1 else 0.0) for _, error in blocks
    ]
    columns = max(len(_chosen(chain)) for chain in chains)
    width = max(COLUMN_INCHES * columns, 3 * COLUMN_INCHES)
    figure = Figure(figsize=(width, HEAD_INCHES + sum(heights) + SKILL_INCHES), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subfigures(len(blocks) + 1, 1, height_ratios=[*heights, SKILL_INCHES])
    for panel, (chain, error) in zip(panels, blocks, strict=False):
        _draw_modality(panel, chain, error)
    _draw_skill(panels[-1].subplots(), [error for _, error in blocks])
    generated = any(scene.generated for chain in chains for scene in chain.scenes)
    figure.suptitle(
        f"Masked windows after {step:,} steps{'  (generated scene: made up, not measured)' if generated else ''}\n"
        "standardised values; masked pixels brought back over the reverse chain, visible ones as they are",
        fontsize=10,
    )
    return figure


def save_picture(figure: Figure, file: Path) -> npt.NDArray[np.uint8]:
    """Writes a figure as PNG, under another name until it is whole; returns its pixels (H, W, 3)."""
    canvas: Any = figure.canvas
    canvas.draw()
    picture_HWC = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    partial = file.with_name(f".{file.name}.partial")
    try:
        matplotlib.image.imsave(partial, picture_HWC, format="png", dpi=DOTS_PER_INCH)
        publish_file(partial, file)
    finally:
        partial.unlink(missing_ok=True)
    return picture_HWC


def _chosen(chain: DrawnChain) -> list[int]:
    """Chooses the windows to draw: those with the most masked modalities, the first among equals."""
    masked_MB = np.stack([mask.masked_BN.any(dim=1).cpu().numpy() for mask in chain.chain.masks.values()])
    return [int(window) for window in np.argsort(-masked_MB.sum(axis=0), kind="stable")[:MOST_WINDOWS]]


def _draw_modality(panel: Any, chain: DrawnChain, errors: ModalityErrors) -> None:
    schema = next(schema for schema in chain.batch.schemas if schema.key == errors.key)
    record = chain.scenes[0].modality(schema.name)
    chosen = _chosen(chain)
    several = schema.bands > 1
    panel.suptitle(f"{shown_bands(record).title}: {_figures(errors.all_bands)}", fontsize=9, x=0.01, ha="left")
    axes = panel.subplots(
        3 + several,
        len(chosen),
        squeeze=False,
        gridspec_kw={"height_ratios": [IMAGE_INCHES] * 3 + [SPECTRUM_INCHES] * several},
    )
    images = _images(chain, schema, record, chosen)
    for row, (label, of_windows) in enumerate(images.items()):
        axes[row, 0].set_ylabel(label, fontsize=8)
        for column, image in enumerate(of_windows):
            axes[row, column].imshow(image, interpolation="nearest")
            _bare(axes[row, column])
            if several and (pixel := _marked(chain, schema, chosen[column])) is not None:
                _mark(axes[row, column], pixel, image.shape[1])
    for column, window in enumerate(chosen):
        axes[0, column].set_title(chain.scenes[window].name, fontsize=7, color="#555555")
        if several:
            _draw_spectrum(axes[3, column], chain, record, schema, window, first=column == 0)


def _figures(errors: Errors) -> str:
    if errors.rmse is None or errors.skill is None or errors.skill_over_window_mean is None:
        return "no figure"
    return (
        f"RMSE {errors.rmse:.2f}, skill {errors.skill:.2f} over the band's mean, "
        f"{errors.skill_over_window_mean:.2f} over the visible pixels' mean"
    )


def _images(
    chain: DrawnChain, schema: ModalitySchema, record: ModalityRecord, chosen: list[int]
) -> dict[str, list[npt.NDArray[np.float64]]]:
    """Each row's name, and its windows as red, green and blue from 0 to 1."""
    bands = list(shown_bands(record).bands)
    mask, valid_BN = chain.chain.masks[schema.key], chain.batch.valid[schema.key].cpu().numpy()
    true_BNE = chain.batch.windows[schema.key][..., bands].cpu().numpy()
    said_BNE = chain.chain.reconstructed[schema.key][..., bands].cpu().numpy()
    seen = true_BNE[chosen][valid_BN[chosen]]
    low_E, high_E = np.percentile(seen, (STRETCH, 100 - STRETCH), axis=0) if len(seen) else (-1.0, 1.0)
    masked_BN = mask.masked_BN.cpu().numpy()
    side = round(valid_BN.shape[1] ** 0.5)

    def coloured(values_BNE: npt.NDArray[np.float32], hidden_BN: npt.NDArray[np.bool_], window: int) -> Any:
        scaled_NE = np.nan_to_num((values_BNE[window] - low_E) / np.maximum(high_E - low_E, 1e-6))
        image_N3 = np.broadcast_to(np.clip(scaled_NE, 0.0, 1.0), (len(scaled_NE), 3)).copy()
        image_N3[hidden_BN[window]] = _rgb(MASKED)
        image_N3[~valid_BN[window]] = _rgb(MISSING)
        return image_N3.reshape(side, side, 3)

    nothing_BN = np.zeros_like(masked_BN)
    return {
        "true": [coloured(true_BNE, nothing_BN, window) for window in chosen],
        "masked": [coloured(true_BNE, masked_BN, window) for window in chosen],
        "reconstructed": [coloured(said_BNE, nothing_BN, window) for window in chosen],
    }


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))


def _marked(chain: DrawnChain, schema: ModalitySchema, window: int) -> int | None:
    """The masked pixel nearest to the window's centre, for the spectrum; None where none is masked."""
    masked = np.flatnonzero(chain.chain.masks[schema.key].masked_BN[window].cpu().numpy())
    side = round(chain.batch.valid[schema.key].shape[1] ** 0.5)
    distance = (masked // side - side // 2) ** 2 + (masked % side - side // 2) ** 2
    return int(masked[distance.argmin()]) if masked.size else None


def _mark(axes: Any, pixel: int, side: int) -> None:
    corner = (pixel % side - 0.5, pixel // side - 0.5)
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=MARK, linewidth=1.6))


def _draw_spectrum(
    axes: Any, chain: DrawnChain, record: ModalityRecord, schema: ModalitySchema, window: int, first: bool
) -> None:
    axes.tick_params(labelsize=6)
    axes.set_xlabel("band" if schema.wavelengths_nm is None else "wavelength (nm)", fontsize=7)
    if first:
        axes.set_ylabel("outlined pixel", fontsize=8)
    pixel = _marked(chain, schema, window)
    if pixel is None:
        return
    x = np.array(schema.wavelengths_nm or range(1, schema.bands + 1), dtype=np.float64)
    order = np.argsort(x, kind="stable")
    order = order[~np.isin(order + 1, record.constant_bands)]
    breaks = spectrum_breaks(x[order])
    true_BNC, mask = chain.batch.windows[schema.key], chain.chain.masks[schema.key]
    for values_C, colour, label in (
        (window_means(true_BNC, mask)[window], GUESS, "visible pixels' mean"),
        (true_BNC[window, pixel], TRUE, "true"),
        (chain.chain.reconstructed[schema.key][window, pixel], SAID, "reconstructed"),
    ):
        curve = np.insert(values_C.cpu().numpy()[order], breaks, np.nan)
        axes.plot(np.insert(x[order], breaks, np.nan), curve, color=colour, linewidth=1.1, label=label)
    if first:
        axes.legend(fontsize=5.5, frameon=False, loc="best", handlelength=1.2)


def _draw_skill(axes: Any, errors: Sequence[ModalityErrors]) -> None:
    """Draws the skill of each link, from noise on the left to the end of the chain on the right."""
    for error in errors:
        timesteps, skills = zip(*error.skill_by_timestep, strict=True)
        values = [np.nan if skill is None else skill for skill in skills]
        axes.plot(timesteps, values, marker="o", markersize=3, linewidth=1.2, label=error.name)
    axes.axhline(0.0, color="#aaaaaa", linewidth=0.8)
    axes.invert_xaxis()
    axes.set_xlabel("timestep of the chain: from noise to clean visible pixels", fontsize=8)
    axes.set_ylabel("skill over the\nband's mean", fontsize=8)
    axes.tick_params(labelsize=7)
    handles, _ = axes.get_legend_handles_labels()
    kinds = [Patch(facecolor=MASKED, label="masked"), Patch(facecolor=MISSING, edgecolor="#aaaaaa", label="no data")]
    axes.legend(handles=[*handles, *kinds], fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _bare(axes: Any) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#aaaaaa")
