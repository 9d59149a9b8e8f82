"""Images and masks by visit, given as a store gives them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np


class PlaneReader:
    """Gives rows of planes in memory, and counts the pixels that are read.

    Parameters
    ----------
    images, masks
        Arrays by visit.
    part
        Rows and columns of them that are seen.
    n_bands
        Pieces to read.
    """

    def __init__(self, images, masks, part=(slice(None), slice(None)), n_bands=3):
        self.images = {visit: image[part] for visit, image in images.items()}
        self.masks = {visit: mask[part] for visit, mask in masks.items()}
        self.height = next(iter(self.masks.values())).shape[0]
        self.n_bands = n_bands
        self.reads = Counter()

    def bands(self):
        edges = np.linspace(0, self.height, self.n_bands + 1).astype(int).tolist()
        return [slice(*pair) for pair in pairwise(edges)]

    def image(self, visit, rows=None, out=None):
        # What is read may be changed.
        pixels = self._read("image", visit, self.images, rows).copy()
        if out is None:
            return pixels
        out[...] = pixels
        return out

    def mask(self, visit, rows=None):
        return self._read("mask", visit, self.masks, rows)

    def _read(self, plane, visit, planes, rows):
        pixels = planes[visit][rows or slice(None)]
        self.reads[plane, visit] += pixels.size
        return pixels
