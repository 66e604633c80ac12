"""Writes, finds and loads checkpoints."""
