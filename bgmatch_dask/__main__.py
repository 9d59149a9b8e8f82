"""``python -m bgmatch_dask`` is ``bgmatch``."""

from bgmatch_dask.cli.main import app

if __name__ == "__main__":
    app()
