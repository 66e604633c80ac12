"""Takes the blocks out of a documentation page and runs them as a reader would."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parents[2] / "docs"
_BLOCK = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A fenced block: bash and python run; one with a title is written to a file of that name first.

    What is only shown is fenced as ``text``.
    """

    language: str
    title: str | None
    text: str


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page that readers use, in order; `page` is relative to docs/."""
    found = [Block(one["language"], one["title"], one["text"]) for one in _BLOCK.finditer((DOCS / page).read_text())]
    return [block for block in found if block.language != "text"]


def run_page(page: str, folder: Path) -> None:
    """Runs a page's blocks in a folder; a block that fails fails the test with what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in blocks_of(page):
        if block.title is not None:
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.text)
        if block.language == "bash":
            command = ["bash", "-euo", "pipefail", "-c", block.text]
        elif block.language == "python":
            command = [sys.executable, "-c", block.text]
        else:
            assert block.title is not None, f"{page}: a {block.language} block without a title"
            continue
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{page}: {block.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
