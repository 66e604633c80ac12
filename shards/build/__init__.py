"""Scenes into an archive."""
