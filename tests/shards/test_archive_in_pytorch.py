"""The example of docs/use-an-archive-in-pytorch.md runs as it is printed there."""

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "use-an-archive-in-pytorch.md"


def test_the_page_s_loop_learns_from_an_archive(
    generated_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "synthetic-archive").symlink_to(generated_archive)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(compile(example, str(PAGE), "exec"), {})  # noqa: S102  our own page
    losses = [float(line.rpartition(" ")[2]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 5
    assert losses[-1] < losses[0] / 2
