"""Pages and files of the site that the sources give: commands' help, JSON Schemas with their tables, and notebooks.

mkdocs calls `on_files` (mkdocs.yml, hooks). Nothing that this writes lies in docs/, so nothing can be out of date.
"""

import importlib
import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from diffclip_dist.cli.command_parser import CommandParser
from diffclip_dist.cli.main import COMMANDS
from diffclip_dist.cli.options.schema import SCHEMAS
from diffclip_dist.cli.schema import json_schema

_FILES = {"scene": "scene.yaml", "manifest": "manifest.json"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what the sources give to the site's files."""
    made = {"reference/commands.md": commands_page()}
    for name in SCHEMAS:
        schema = json_schema(name)
        made[f"reference/{name}.schema.json"] = json.dumps(schema, indent=2)
        made[f"reference/{name}-file.md"] = schema_page(name, schema)
    for notebook in sorted((Path(config.docs_dir) / "notebooks").glob("*.ipynb")):
        made[f"notebooks/{notebook.stem}.md"] = notebook_page(notebook)
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def commands_page() -> str:
    """The help of every command, as argparse prints it."""
    lines = [
        "# Commands",
        "",
        "What each command says to `--help`. `launch/NAME.py` takes the same as `diffclip NAME`.",
    ]
    with mock.patch.dict(os.environ, {"COLUMNS": "82"}):
        for name, said in COMMANDS.items():
            options = importlib.import_module(f"diffclip_dist.cli.options.{name}")
            parser = CommandParser(f"diffclip {name}", options.__doc__)
            options.add_options(parser)
            lines += ["", f"## diffclip {name}", "", f"{said[0].upper()}{said[1:]}.", ""]
            lines += ["```text", parser.format_help().rstrip(), "```"]
    return "\n".join(lines)


def schema_page(name: str, schema: dict[str, Any]) -> str:
    """The fields of a file, a table for each part."""
    lines = [f"# {_FILES[name]}", ""]
    lines += [f"As a JSON Schema: [{name}.schema.json]({name}.schema.json), or `diffclip schema {name}`."]
    if name == "scene":
        lines += ["", "An editor with the YAML language server checks and completes a file that begins with", ""]
        lines += ["    # yaml-language-server: $schema=scene.schema.json"]
    for part in (schema, *schema["$defs"].values()):
        lines += [
            "",
            f"## {part['title']}",
            "",
            part["description"],
            "",
            "| Field | Takes | Meaning |",
            "|---|---|---|",
        ]
        needed = part.get("required", ())
        for field, said in part["properties"].items():
            star = " (needed)" if field in needed else ""
            lines += [f"| `{field}`{star} | {_takes(said)} | {said.get('description', '')} |"]
    return "\n".join(lines)


def notebook_page(notebook: Path) -> str:
    """A notebook's text and code; what it draws shows when it is run."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    download = f"[Download the notebook]({notebook.name}) and run it to see its pictures."
    return "\n\n".join([parts[0], download, *parts[1:]])


def _takes(said: dict[str, Any]) -> str:
    """What a field may hold, in a few words."""
    if "$ref" in said:
        part = said["$ref"].rpartition("/")[2]
        return f"[{part}](#{part.lower()})"
    if "anyOf" in said:
        return " or ".join(dict.fromkeys(_takes(one) for one in said["anyOf"] if one != {"type": "null"}))
    if "enum" in said or "const" in said:
        return ", ".join(f"`{one}`" for one in said.get("enum", [said.get("const")]))
    if said["type"] == "array":
        inner = said.get("items") or {}
        return f"list of {_takes(inner)}" if inner else "list"
    if said["type"] == "object":
        return f"mapping to {_takes(said['additionalProperties'])}"
    return {"string": "text", "integer": "whole number", "boolean": "true or false"}.get(said["type"], said["type"])
