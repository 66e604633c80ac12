"""Pictures of an archive's scenes."""
