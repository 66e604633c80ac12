"""Maps for Python users."""

from pathlib import Path

from diffclip_dist.api.few_shot_classifier import FewShotClassifier
from diffclip_dist.api.scenes import Raster, SceneLike, like_scene, readable_scene
from diffclip_dist.fewshot.scene_match import MatchOptions
from diffclip_dist.mapping.geotiff import read_map
from diffclip_dist.mapping.map_files import check_map_file, write_map
from diffclip_dist.mapping.predict import map_job


def predict_map(
    classifier: FewShotClassifier | str | Path,
    scene: SceneLike,
    out: str | Path | None = None,
    *,
    map_bands: bool = False,
    trust_units: bool = False,
    keep_priors: bool = False,
) -> Raster:
    """Maps a scene, and writes the map as ``predict.py`` does.

    Args:
        classifier: fitted, or the folder of a saved one.
        scene: as `FewShotClassifier` takes it.
        out: MAP.tif, which gets CRS, colours and class names where there are any, and a picture beside it, in
            place of an earlier map; None writes nothing. A map that was interrupted goes on when it is called for
            again.
        map_bands: where the scene's bands are others, take the nearest by wavelength.
        trust_units: map a scene whose values seem to come in other units.
        keep_priors: keep class priors and class means of the scene that the classifier was fitted in, see
            `FewShotClassifier.predict`.

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
    if out is None:
        return model.predict(scene, map_bands=map_bands, trust_units=trust_units, keep_priors=keep_priors)
    job = map_job(model.on_device(), readable_scene(scene), match=MatchOptions(map_bands, trust_units, keep_priors))
    write_map(Path(out), job)
    return like_scene(read_map(Path(out), job.classes), scene, "class")
