"""A table of tiles gives back the records that it was made of, in far fewer bytes."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from shards.archive.archive import Archive
from shards.archive.tile_table import TileTable


def test_a_table_holds_the_records_of_an_archive(generated_archive: Path) -> None:
    (scene,) = Archive.open(generated_archive).manifest.scenes
    tiles = (*scene.tiles, replace(scene.tiles[0], scene="Hügel", key="Hügel_1", path="tiles/ü.tar", offset=2**40))
    table = TileTable.of(tiles)
    sent = pickle.loads(pickle.dumps(table))  # noqa: S301  our own, as Ray and the loader send it
    assert tuple(table) == tuple(sent) == tiles
    assert sent[len(tiles) - 1] == tiles[-1]
    assert sent.valid_pixels.tolist() == [tile.valid_pixels for tile in tiles]
    with pytest.raises(IndexError):
        table[len(tiles)]


def test_a_thousand_tiles_are_sent_in_under_two_hundred_bytes_each(generated_archive: Path) -> None:
    (scene,) = Archive.open(generated_archive).manifest.scenes
    tiles = [replace(scene.tiles[0], key=f"small_{row:07d}_{0:07d}", offset=row << 20, row=row) for row in range(1000)]
    assert len(pickle.dumps(TileTable.of(tiles))) < 200 * len(tiles)
