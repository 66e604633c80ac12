"""The rows by the archive's size: a manifest that opens as any other, and figures with their units."""

from pathlib import Path

from archive_size_rows import opened_row, order_row, write_archive
from report import write_json

from shards.archive.archive import Archive


def test_a_generated_manifest_opens_and_its_rows_can_be_written(tmp_path: Path) -> None:
    write_archive(str(tmp_path), 50)
    manifest = Archive.open_unverified(tmp_path).manifest
    assert (len(manifest.files), len(manifest.scenes[0].tiles)) == (50, 50)
    assert manifest.scenes[0].generated
    row = {**order_row(50), **opened_row(str(tmp_path))}
    assert row["tiles"] == 50
    assert 0.0 < row["sent_to_rank_mb"] < 0.05
    write_json(tmp_path / "rows.json", {}, [row])
