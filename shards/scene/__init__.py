"""Scenes as users have them: scene.yaml, readers of files, labels."""
