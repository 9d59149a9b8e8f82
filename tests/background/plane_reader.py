"""Images and masks by visit, given as a store gives them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np

from bgmatch_dask.background.differences import Piece


class PlaneReader:
    """Gives rows of planes in memory, and counts the pixels that are read.

    Parameters
    ----------
    images, masks
        Arrays by visit.
    part
        Rows and columns of them that are seen.
    n_bands
        Bands of pieces to read.
    """

    def __init__(self, images, masks, part=(slice(None), slice(None)), n_bands=3):
        self.images = {visit: image[part] for visit, image in images.items()}
        self.masks = {visit: mask[part] for visit, mask in masks.items()}
        self.n_bands = n_bands
        self.reads = Counter()

    def pieces(self, visit):
        """Pieces overlap the box at its edges, as chunks of a store do."""
        height, width = self.masks[visit].shape
        for rows in _cut(height, self.n_bands):
            for columns in _cut(width, 2):
                image = np.pad(self._read("image", visit, self.images, (rows, columns)), 2)
                mask = np.pad(self._read("mask", visit, self.masks, (rows, columns)), 2)
                yield Piece(image, mask, (2, 2), (rows, columns))

    def image(self, visit):
        # What is read may be changed.
        return self._read("image", visit, self.images).copy()

    def mask(self, visit):
        return self._read("mask", visit, self.masks)

    def _read(self, plane, visit, planes, part=()):
        pixels = planes[visit][part]
        self.reads[plane, visit] += pixels.size
        return pixels


def _cut(size, n):
    edges = np.linspace(0, size, n + 1).astype(int).tolist()
    return [slice(*pair) for pair in pairwise(edges)]
