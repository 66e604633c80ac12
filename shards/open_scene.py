"""Opens the scene that a user names on the command line."""

from pathlib import Path

from shards.errors import BadInput
from shards.nearest import did_you_mean
from shards.scene.file_scene import open_product, open_scene_file
from shards.scene.products.known_products import KNOWN
from shards.scene.public_sets import PUBLIC_SETS, open_public_set
from shards.scene.source import SceneSource
from shards.simulate.coarse_scene import CoarseScene, CoarseSceneSpec
from shards.simulate.generated_scene import PRESETS, generated_scene

SCENE_FILE = "scene.yaml"
SCENE_SUFFIXES = (".yaml", ".yml")
COARSE = CoarseSceneSpec()


def open_scene(spec: str) -> SceneSource:
    """Opens a scene: a scene.yaml, a folder that holds one, a product's folder or file, or the name of a generated or
    a public scene.

    Raises:
        BadInput: there is no such scene, or it cannot be used.
    """
    path = Path(spec)
    if path.is_dir() and (path / SCENE_FILE).exists():
        return open_scene_file(path / SCENE_FILE)
    if path.exists() and (product := open_product(path)) is not None:
        return product
    if path.is_dir():
        raise BadInput(f"{path}: holds no {SCENE_FILE} and is no known product: {KNOWN}")
    if path.is_file():
        if path.suffix.lower() not in SCENE_SUFFIXES:
            example = f"{{name: {path.stem}, modalities: {{image: {{files: {path.name}}}}}}}"
            raise BadInput(f"{spec}: expected a scene.yaml; write one beside this file that says {example}")
        return open_scene_file(path)
    if spec in PRESETS:
        return generated_scene(spec)
    if spec == COARSE.name:
        return CoarseScene(COARSE)
    if spec in PUBLIC_SETS:
        return open_public_set(spec)
    names = [*PRESETS, COARSE.name, *PUBLIC_SETS]
    raise BadInput(
        f"{spec}: no such file, folder or scene; expected a scene.yaml, a folder with one, or one of "
        f"{', '.join(names)}{did_you_mean(spec, names)}"
    )
