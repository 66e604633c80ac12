"""Tags, headers and metadata at random: a scene is read or refused in one line, and never ends in a traceback."""

import tempfile
from pathlib import Path

import pytest
from corruptions import CORRUPTERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shards.archive.archive import Archive
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.errors import BadInput
from shards.open_scene import open_scene

FEW, MANY = (
    settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow]) for count in (6, 75)
)
# what a library prints on its own when an object that was opened halfway is destroyed
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")


def read_or_refuse(kind: str, data: st.DataObject) -> None:
    """Builds a corrupted scene; an archive that is made can be read, and one that is not leaves nothing behind."""
    with tempfile.TemporaryDirectory() as folder:
        inputs, archive = Path(folder) / "in", Path(folder) / "out" / "archive"
        inputs.mkdir()
        archive.parent.mkdir()
        scene = CORRUPTERS[kind](inputs, data.draw)
        try:
            build_archive([open_scene(str(scene))], archive, ArchiveSettings())
        except BadInput:
            assert not list(archive.parent.iterdir())
            return
        built = Archive.open(archive)
        built.read_scene(built.manifest.scenes[0].name)


@pytest.mark.parametrize("kind", CORRUPTERS)
@FEW
@given(data=st.data())
def test_a_corrupted_input_is_read_or_refused(kind: str, data: st.DataObject) -> None:
    read_or_refuse(kind, data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CORRUPTERS)
@MANY
@given(data=st.data())
def test_a_thousand_corrupted_inputs_are_read_or_refused(kind: str, data: st.DataObject) -> None:
    read_or_refuse(kind, data)
