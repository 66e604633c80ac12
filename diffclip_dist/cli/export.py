"""An encoder as an ONNX graph."""

import argparse

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.feature_extraction.encoder_source import read_encoder
from diffclip_dist.feature_extraction.scene_view import encoder_for_scene
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.onnx_export import OPSET, export_onnx
from shards.archive.archive import Archive
from shards.errors import BadInput
from shards.extras import install_line, installed


def run(arguments: argparse.Namespace) -> int:
    """Writes the graph."""
    if (arguments.archive is None) != (arguments.scene is None):
        raise BadInput("--archive and --scene: expected both or neither")
    if arguments.out.exists():
        raise BadInput(f"--out {arguments.out}: exists already; name another file")
    if not arguments.out.parent.is_dir():
        raise BadInput(f"--out {arguments.out}: its folder does not exist; make it first")
    if not installed("onnxscript"):
        raise BadInput(install_line("onnxscript"))
    encoder = read_encoder(arguments.encoder).encoder
    assert isinstance(encoder, MultimodalEncoder)
    if arguments.archive is not None:
        record = Archive.open_unverified(arguments.archive).scene(arguments.scene)
        encoder = encoder_for_scene(encoder, record, str(arguments.encoder))
    difference = export_onnx(encoder, arguments.out)
    listed = ", ".join(f"{schema.name} ({schema.bands} bands)" for schema in encoder.modalities)
    print(f"graph       {arguments.out}, opset {OPSET}")
    print(f"reads       windows of {encoder.config.window} x {encoder.config.window} pixels: {listed}")
    print(f"difference  {difference:.1e} at most from PyTorch's features")
    return EXIT_DONE
