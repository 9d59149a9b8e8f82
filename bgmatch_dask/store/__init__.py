"""Floor 2: the Zarr store of a tract."""

from bgmatch_dask.store.alignment import assert_aligned
from bgmatch_dask.store.layout import TractSpec, create_tract, read_spec
from bgmatch_dask.store.ledger import Ledger
from bgmatch_dask.store.location import Location, normalise_url
from bgmatch_dask.store.planes import TractStore, open_store
from bgmatch_dask.store.receipt import Receipt

__all__ = (
    "Ledger",
    "Location",
    "Receipt",
    "TractSpec",
    "TractStore",
    "assert_aligned",
    "create_tract",
    "normalise_url",
    "open_store",
    "read_spec",
)
