"""Reads, writes and verifies archives: manifest, Zarr scenes, WebDataset tiles, on disk or in an object store."""
