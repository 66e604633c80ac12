"""Which bands of a layer hold data."""

from shards.scene.readers.layer import Layer

# values read at once when bands are looked through
BLOCK_VALUES = 1 << 22


def usable_bands(layer: Layer, bands: tuple[int, ...], asked: bool) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Leaves out bands that the files call bad and bands without any valid pixel.

    Args:
        layer: as its files hold it.
        bands: the bands wanted (from 1).
        asked: the user named them one by one, so that bad ones stay.

    Returns:
        The bands that are left, never none, and a line for each kind that was left out.
    """
    lines = []
    bad = tuple(band for band in bands if band in layer.bad_bands)
    if bad and not asked and len(bad) < len(bands):
        bands = tuple(band for band in bands if band not in bad)
        lines.append(f"{_named(layer, bad)} marked as bad in the file: left out (name them in `bands` to keep them)")
    empty = _empty_bands(layer, bands)
    if empty and len(empty) < len(bands):
        bands = tuple(band for band in bands if band not in empty)
        lines.append(f"{_named(layer, empty)} without any valid pixel: left out")
    return bands, tuple(lines)


def _empty_bands(layer: Layer, bands: tuple[int, ...]) -> tuple[int, ...]:
    """Bands without any valid pixel. Blocks are looked at from the middle of the scene outwards, mostly one alone."""
    left = bands
    rows = max(1, BLOCK_VALUES // (layer.grid.width * len(bands)))
    middle = layer.grid.height // 2
    starts = sorted(range(0, layer.grid.height, rows), key=lambda start: abs(start + rows // 2 - middle))
    for start in starts:
        block = slice(start, min(start + rows, layer.grid.height)), slice(0, layer.grid.width)
        filled = layer.bands_with_data(*block, left)
        left = tuple(band for band in left if band not in filled)
        if not left:
            break
    return left


def _named(layer: Layer, bands: tuple[int, ...]) -> str:
    """Bands by their names, or as ranges of numbers: ``bands 3, 5-7``."""
    word = "band" if len(bands) == 1 else "bands"
    if layer.band_names is not None:
        return f"{word} {', '.join(layer.band_names[band - 1] for band in bands)}"
    runs: list[list[int]] = []
    for band in bands:
        if runs and band == runs[-1][-1] + 1:
            runs[-1].append(band)
        else:
            runs.append([band])
    return f"{word} {', '.join(str(run[0]) if len(run) == 1 else f'{run[0]}-{run[-1]}' for run in runs)}"
