"""Floor 1: array algorithms (numpy, scipy, numba); they know nothing else of ours."""
