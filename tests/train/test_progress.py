"""Progress is read from files while they are written: each line once, and never half a line."""

import tracemalloc
from pathlib import Path

from diffclip_dist.train.monitor.new_lines import NewLines


def test_each_complete_line_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = NewLines(file)
    assert list(lines.read()) == []
    with file.open("w") as written:
        for text, expected in (("1\n2\nthr", ["1", "2"]), ("", []), ("ee\n", ["three"]), ("höhe\n", ["höhe"])):
            written.write(text)
            written.flush()
            assert [*lines.read()] == expected


def test_a_file_that_takes_anothers_place_is_read_from_its_beginning(tmp_path: Path) -> None:
    file, newer = tmp_path / "metrics.jsonl", tmp_path / "metrics.partial"
    lines = NewLines(file)
    file.write_text("1\n2\n3\n")
    assert [*lines.read()] == ["1", "2", "3"]
    newer.write_text("1\n2\n4\n5\n")
    newer.replace(file)
    assert [*lines.read()] == ["1", "2", "4", "5"]
    file.write_text("1\n")
    assert [*lines.read()] == ["1"]


def test_a_long_file_is_read_in_little_memory(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with file.open("w") as written:
        written.writelines(f"{step:1023d}\n" for step in range(16 * 1024))
    tracemalloc.start()
    try:
        assert sum(1 for _ in NewLines(file).read()) == 16 * 1024
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2**20
