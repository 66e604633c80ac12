"""Scenes into archives, and archives back into tiles and scenes. Nothing here imports torch."""
