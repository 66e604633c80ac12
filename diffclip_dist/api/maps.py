"""Maps for Python users."""

from pathlib import Path

import numpy as np

from diffclip_dist.api.few_shot_classifier import FewShotClassifier
from diffclip_dist.api.scenes import Raster, SceneLike, readable_scene
from diffclip_dist.mapping.map_files import check_map_file, write_map


def predict_map(
    classifier: FewShotClassifier | str | Path,
    scene: SceneLike,
    out: str | Path | None = None,
    *,
    map_bands: bool = False,
    trust_units: bool = False,
) -> Raster:
    """Maps a scene, and writes the map as ``predict.py`` does.

    Args:
        classifier: fitted, or the folder of a saved one.
        scene: as `FewShotClassifier` takes it.
        out: MAP.tif, which gets CRS, colours and class names where there are any, and a picture beside it, in
            place of an earlier map; None writes nothing.

    Returns:
        Class ids (row, col), see `FewShotClassifier.predict`.

    Raises:
        BadInput: classifier and scene do not fit each other, or the files cannot be written.

    Example:
        >>> class_map = dc.predict_map("classifier", dc.open_archive("archive")["potsdam"], out="map.tif")
    """
    if out is not None:
        check_map_file(Path(out), force=True)
    model = classifier if isinstance(classifier, FewShotClassifier) else FewShotClassifier.load(classifier)
    found = model.predict(scene, map_bands=map_bands, trust_units=trust_units)
    if out is not None:
        record = readable_scene(scene).record
        write_map(Path(out), np.asarray(found), record, model.classifier_.config, record.height)
    return found
