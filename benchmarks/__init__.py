"""Benchmarks of bgmatch_dask on this machine: speed, memory, scaling, accuracy, and peers.

Run by ``bgmatch bench``, or ``python -m benchmarks`` in the folder of the source tree.
"""
