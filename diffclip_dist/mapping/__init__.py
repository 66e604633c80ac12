"""Maps scenes with a classifier and writes the maps."""
