"""Builds an archive of scenes, in one process or many, with the same bytes."""
