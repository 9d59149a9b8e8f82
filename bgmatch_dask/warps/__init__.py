"""Floor 2: where warps come from: files, reprojection, simulation."""
