"""Prints the JSON Schema of a file, for editors and other programs.

An editor with the YAML language server checks and completes a scene.yaml whose first line is
`# yaml-language-server: $schema=scene.schema.json`, after `diffclip schema scene > scene.schema.json`.
"""

import argparse

SCHEMAS = ("scene", "manifest")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument("file", choices=SCHEMAS, help="scene: scene.yaml; manifest: an archive's manifest.json")
