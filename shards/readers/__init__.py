"""Files into layers: one array on one grid, read block by block."""
