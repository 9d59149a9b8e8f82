"""Floor 2: the Zarr store of a tract."""
