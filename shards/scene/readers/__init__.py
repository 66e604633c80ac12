"""Files into layers: arrays on one grid, read block by block."""
