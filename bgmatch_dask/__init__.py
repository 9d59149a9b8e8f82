"""Background matching of many visits of one tract, on a Dask cluster."""

__version__ = "0.1.0"
