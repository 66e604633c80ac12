"""Draws pictures of an archive's scenes."""
