"""Tiles into batches of windows, in one global order of samples."""
