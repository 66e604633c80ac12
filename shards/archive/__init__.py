"""Archives on disk or in an object store: manifest, Zarr scenes, WebDataset tiles, verification."""
