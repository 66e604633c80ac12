"""Reads a scene for one encoder: at once where it is small, else in patches and blocks, in bounded memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffclip_dist.feature_extraction.bands_only import FeatureEncoder, window_side
from diffclip_dist.feature_extraction.blocks import (
    BLOCK_BYTES,
    SceneBlock,
    Wanted,
    reading_margin,
    reading_stride,
    view_blocks,
)
from diffclip_dist.feature_extraction.extractor import held_values
from diffclip_dist.feature_extraction.feature_config import FeatureConfig
from diffclip_dist.feature_extraction.scene_patches import side_by_side
from diffclip_dist.feature_extraction.scene_sample import WHOLE_SCENE_PIXELS, SceneSample, draw_patches
from diffclip_dist.feature_extraction.scene_survey import PatternSurvey, SceneStrip, read_strips
from diffclip_dist.feature_extraction.scene_view import SceneView, view_scene
from diffclip_dist.feature_extraction.views import Grid
from shards.archive.archive import ReadableScene
from shards.archive.manifest import ModalityRecord

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SceneReader:
    """A scene, and how it is read.

    Attributes:
        scene: in memory or in an archive.
        modalities: those that the encoder knows, with the statistics to standardise with.
        encoder: sets the window.
        config: sets the stride and the reach of smoothing.
        survey: which modalities its pixels have.
        view: the whole scene; None where it is large.
    """

    scene: ReadableScene
    modalities: tuple[ModalityRecord, ...]
    encoder: FeatureEncoder
    config: FeatureConfig
    survey: PatternSurvey
    view: SceneView | None

    @classmethod
    def open(
        cls,
        scene: ReadableScene,
        encoder: FeatureEncoder,
        config: FeatureConfig,
        look: Callable[[SceneStrip], None] = lambda _: None,
        whole_pixels: int = WHOLE_SCENE_PIXELS,
        modalities: Sequence[ModalityRecord] | None = None,
    ) -> "SceneReader":
        """Looks over a scene once.

        Args:
            scene: in memory or in an archive.
            encoder: knows the scene's modalities, and no others unless `modalities` are given.
            config: sets the stride and the reach of smoothing.
            look: is given each strip of the scene, from top to bottom.
            whole_pixels: a scene of no more pixels is read at once.
            modalities: statistics to standardise with, of the encoder's modalities; None takes the scene's own.
        """
        record = scene.record
        known = {schema.name for schema in encoder.modalities}
        modalities = tuple(one for one in modalities or record.modalities if one.name in known)
        held = {one.name for one in record.modalities}
        names = tuple(one.name for one in modalities if one.name in held)
        view = None
        if record.height * record.width <= whole_pixels:
            scene = scene.read(names)
            view = view_scene(scene, modalities, encoder, config)
        survey = PatternSurvey(names, record.height, record.width)
        for strip in read_strips(scene, names):
            survey.add(strip)
            look(strip)
        return cls(scene, modalities, encoder, config, survey, view)

    @property
    def grid(self) -> Grid:
        """The windows of the scene that its pixels are read from."""
        record = self.scene.record
        return Grid(record.height, record.width, window_side(self.encoder), reading_stride(self.encoder, self.config))

    def sample(self, pattern: Sequence[str]) -> SceneSample:
        """Pixels that stand for those that have data of these modalities and of no other; all of a small scene."""
        if self.view is not None:
            return SceneSample(self.view, np.ones(self.view.present.shape, np.bool_))
        return draw_patches(self.scene, self.modalities, self.encoder, self.config, self.survey.cells(pattern))

    def around(self, rows: Positions, cols: Positions) -> tuple[SceneView, Positions, Positions]:
        """A scene of the surroundings of some pixels, and where they lie in it."""
        if self.view is not None:
            return self.view, rows, cols
        stride, margin = reading_stride(self.encoder, self.config), reading_margin(self.encoder, self.config)
        names = [modality.name for modality in self.modalities]
        patches = side_by_side(self.scene, names, np.stack([rows, cols], axis=1), 1, margin, stride)
        view = view_scene(patches.scene, self.modalities, self.encoder, self.config, None)
        return view, patches.corners[:, 0], patches.corners[:, 1]

    def blocks(self, wanted: Wanted, block_bytes: int = BLOCK_BYTES) -> Iterator[SceneBlock]:
        """The scene's blocks that have wanted pixels, see `view_blocks`; a small scene is one block."""
        if self.view is None:
            values = held_values(self.modalities, self.config)
            yield from view_blocks(
                self.scene, self.modalities, self.encoder, self.config, values, block_bytes, wanted=wanted
            )
            return
        rows, cols = slice(0, self.scene.record.height), slice(0, self.scene.record.width)
        if (asked := wanted(rows, cols)).any():
            yield SceneBlock(rows, cols, self.view, (rows, cols), asked)
