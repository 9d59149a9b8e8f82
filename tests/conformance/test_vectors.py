"""Every reference vector, through the public API; see the terminal summary for the deviations."""

from __future__ import annotations

import json

import numpy as np
from vector_kinds import RUNNERS


def test_vectors(vector_file, deviations):
    with np.load(vector_file, allow_pickle=False) as arrays:
        data = {key: arrays[key] for key in arrays.files}
    params = json.loads(str(data.pop("params")))
    results = json.loads(str(data.pop("result")))
    RUNNERS[params["kind"]](params, results, data, deviations)
    deviations.judge()
