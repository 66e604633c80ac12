"""The command ``diffclip schema``: JSON Schemas of scene.yaml and manifest.json, from the classes that read them."""

import argparse
import inspect
import json
import re
from dataclasses import is_dataclass
from types import MappingProxyType
from typing import Any, Final

from pydantic import TypeAdapter

from diffclip_dist.cli.commandline import EXIT_DONE
from shards.archive import manifest
from shards.scene import scene_file

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_MODULES: Final = MappingProxyType({"scene": (scene_file, "SceneFile"), "manifest": (manifest, "Manifest")})


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; its exit status."""
    print(json.dumps(json_schema(arguments.file), indent=2))
    return EXIT_DONE


def json_schema(file: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a file as a user may write it.

    Fields carry what the docstrings of their classes say of them. A schema tells less than the reader checks: rules
    over several fields are missing.

    Args:
        file: ``scene`` or ``manifest``.
    """
    module, name = _MODULES[file]
    schema: dict[str, Any] = TypeAdapter(getattr(module, name)).json_schema(mode="validation")
    described = {
        name: one for name, one in vars(module).items() if inspect.isclass(one) and is_dataclass(one) and one.__doc__
    }
    for part in (schema, *schema["$defs"].values()):
        summary, fields = _described(described[part["title"]])
        part["description"] = summary
        for field, said in part["properties"].items():
            said.pop("title", None)
            if field in fields:
                said["description"] = fields[field]
    return {"$schema": _DRAFT, **schema}


def _described(described: type) -> tuple[str, dict[str, str]]:
    """What a docstring says before its attributes, and of each attribute; those of a base class are kept."""
    fields: dict[str, str] = {}
    for one in reversed(described.__mro__[:-1]):
        summary, _, listed = (inspect.getdoc(one) or "").partition("\nAttributes:\n")
        for entry in re.split(r"\n(?=    \S)", f"\n{listed}"):
            names, colon, said = entry.strip().partition(": ")
            if colon:
                fields |= dict.fromkeys(names.split(", "), " ".join(said.split()))
    return " ".join(summary.split()), fields
