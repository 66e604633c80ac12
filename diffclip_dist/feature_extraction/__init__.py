"""Extracts features of a scene's pixels, by any encoder or none; uses no label."""
