"""A release is prepared by one command: version, changelog and the tag's message."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "release.py"
RELEASE = runpy.run_path(str(SCRIPT))
prepare: Callable[[Path, str, str], None] = RELEASE["prepare"]
tag_message: Callable[[Path, str], str] = RELEASE["tag_message"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "diffclip_dist").mkdir()
    (tmp_path / "diffclip_dist" / "__init__.py").write_text('"""Text."""\n\n__version__ = "0.9.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- Maps.\n\n## [0.9.0] - 2026-01-02\n\n- Scenes.\n"
    )
    return tmp_path


def test_what_is_unreleased_gets_its_version_and_date(repository: Path) -> None:
    prepare(repository, "0.10.0", "2026-03-04")
    assert (repository / "CHANGELOG.md").read_text() == (
        "# Changelog\n\n## [Unreleased]\n\n## [0.10.0] - 2026-03-04\n\n### Added\n\n- Maps.\n\n"
        "## [0.9.0] - 2026-01-02\n\n- Scenes.\n"
    )
    assert '__version__ = "0.10.0"' in (repository / "diffclip_dist" / "__init__.py").read_text()
    assert tag_message(repository, "0.10.0") == "diffclip-dist 0.10.0\n\nAdded\n\n- Maps.\n"
    with pytest.raises(ValueError, match="nothing stands under"):
        prepare(repository, "0.11.0", "2026-03-05")


def test_a_first_release_keeps_the_version_that_was_never_released(repository: Path) -> None:
    (repository / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n- All of it.\n")
    prepare(repository, "0.9.0", "2026-03-04")
    assert (repository / "CHANGELOG.md").read_text().endswith("## [0.9.0] - 2026-03-04\n\n- All of it.\n")


@pytest.mark.parametrize("version", ["0.9.0", "0.8.9", "1.0", "v1.0.0", ""])
def test_another_version_is_refused_and_changes_nothing(version: str, repository: Path) -> None:
    before = (repository / "CHANGELOG.md").read_text()
    with pytest.raises(ValueError, match="VERSION="):
        prepare(repository, version, "2026-03-04")
    assert (repository / "CHANGELOG.md").read_text() == before
    assert '__version__ = "0.9.0"' in (repository / "diffclip_dist" / "__init__.py").read_text()
