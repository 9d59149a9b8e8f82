"""Where the work runs: clusters by name, each a few lines over the library that makes it."""

from __future__ import annotations

import importlib
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, cast

import dask
from distributed import Client, LocalCluster
from distributed.security import Security
from distributed.versions import VersionMismatchWarning
from tornado.ioloop import IOLoop, PeriodicCallback

from bgmatch_dask.config import ClusterConfig
from bgmatch_dask.errors import ClusterError
from bgmatch_dask.pipeline.engine import asking
from bgmatch_dask.service.batch_queue import watch_queue
from bgmatch_dask.service.signals import deaf_to, put_off
from bgmatch_dask.service.thread_caps import THREAD_CAPS
from bgmatch_dask.service.versions import address_of, check_versions
from bgmatch_dask.service.worker_setup import WorkerSetup
from bgmatch_dask.service.worker_template import forked_workers

__all__ = (
    "EXTRAS",
    "connect",
    "connect_client",
    "load_extra",
    "made_for_job",
    "scheduler_address",
    "security",
)

EXTRAS = {
    "slurm": "dask_jobqueue",
    "kubernetes": "dask_kubernetes.operator",
    "gateway": "dask_gateway",
}
"""Kinds of clusters that need a package of their own: the module to import."""

_CONNECT_SECONDS = 10.0
"""How long a scheduler is called that does not answer, at the start and when it is lost."""
_REPLACE_SECONDS = 2.0
"""How often workers that are gone are asked for again."""


@contextmanager
def connect(config: ClusterConfig) -> Iterator[Client]:
    """Yield a client of the configured cluster; what was started here ends with the context.

    Raises
    ------
    ClusterError
        ``scheduler-unreachable``, ``scheduler-lost``, ``no-workers``, ``version-mismatch``,
        ``extra-missing`` or ``cluster-refused``.
    """
    with ExitStack() as ending, _OPEN[config.kind](config) as client:
        try:
            with asking(client, "the start"):
                _await_workers(client)
                check_versions(client)
                client.register_plugin(WorkerSetup())
            yield client
        finally:
            # One more Ctrl-C would cancel the end of the cluster, for which the process then waits.
            ending.enter_context(deaf_to(signal.SIGINT, signal.SIGTERM))


def connect_client(config: ClusterConfig) -> Client:
    """Return a client of a scheduler that is already there; the caller closes it.

    Raises
    ------
    ClusterError
        ``scheduler-unreachable``, ``tls-files`` or ``tls-missing``.
    """
    address = scheduler_address(config)
    try:
        with warnings.catch_warnings():
            # Versions are compared, and refused with a table, by `check_versions`.
            warnings.simplefilter("ignore", VersionMismatchWarning)
            return Client(
                address,
                timeout=_CONNECT_SECONDS,
                security=security(config),
                set_as_default=False,
            )
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            "scheduler-unreachable",
            f"No Dask scheduler answers: {error or type(error).__name__}",
            where=address,
            fix="Start one with `dask scheduler`, correct cluster.scheduler, and give the TLS "
            "files (cluster.tls_ca, tls_cert, tls_key) if it speaks tls://.",
        ) from error


def scheduler_address(config: ClusterConfig) -> str:
    """Return the address of the scheduler, from the configuration or Dask's own.

    Raises
    ------
    ClusterError
        ``scheduler-unnamed`` when neither has one.
    """
    address = config.scheduler or dask.config.get("scheduler-address", None)
    if not address:
        raise ClusterError(
            "scheduler-unnamed",
            "The cluster is an address, and no address is given",
            fix="Set cluster.scheduler, --scheduler, or DASK_SCHEDULER_ADDRESS.",
        )
    return str(address)


def security(config: ClusterConfig) -> Security | None:
    """Return the TLS files of the configuration; None leaves the choice to Dask's own.

    Raises
    ------
    ClusterError
        ``tls-files`` when one of them cannot be read; ``tls-missing`` when the address needs them.
    """
    if config.tls_ca is None:
        own = dask.config.get("distributed.comm.tls.ca-file", None)
        if (config.scheduler or "").startswith("tls:") and not own:
            raise ClusterError(
                "tls-missing",
                "The scheduler speaks TLS, and no certificates are given",
                where=str(config.scheduler),
                fix="Set cluster.tls_ca, tls_cert and tls_key to the files of the cluster.",
            )
        return None
    for path in (config.tls_ca, config.tls_cert, config.tls_key):
        if not os.access(str(path), os.R_OK):
            raise ClusterError(
                "tls-files",
                "A TLS file cannot be read",
                where=str(path),
                fix="Correct cluster.tls_ca, tls_cert and tls_key, or make them with "
                "deploy/tls/make_certificates.py.",
            )
    return Security(
        tls_ca_file=config.tls_ca,
        tls_client_cert=config.tls_cert,
        tls_client_key=config.tls_key,
        require_encryption=True,
    )


def load_extra(kind: str) -> Any:  # noqa: ANN401
    """Return the module that makes clusters of a kind.

    Raises
    ------
    ClusterError
        ``extra-missing`` when it is not installed.
    """
    try:
        return importlib.import_module(EXTRAS[kind])
    except ImportError as error:
        raise ClusterError(
            "extra-missing",
            f"The cluster kind {kind!r} needs a package that is not installed: {error}",
            fix=f"pip install 'bgmatch_dask[{kind}]'",
        ) from error


@contextmanager
def _local(config: ClusterConfig) -> Iterator[Client]:
    caps = {"distributed.nanny.pre-spawn-environ": THREAD_CAPS}
    with dask.config.set(caps | forked_workers()), ExitStack() as stack:
        # A terminal sends Ctrl-C to all processes; workers would die with tracebacks before this
        # one has written down what they finished. The thread that starts workers, now and whenever
        # one is lost, hands its deafness on to them.
        with deaf_to(signal.SIGINT), put_off(signal.SIGTERM):
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=config.workers,
                    threads_per_worker=1,
                    processes=True,
                    memory_limit=config.memory_limit,
                    host="127.0.0.1",
                    dashboard_address=config.dashboard,
                    silence_logs=50,
                    # As it is now, not as it was when the process began that workers come from.
                    env=dict(os.environ),
                )
            )
        client = stack.enter_context(Client(cluster))
        if config.max_workers is not None:
            _scale(cluster, config)
            yield client
        else:
            with _replaced(cluster, lambda: cluster.scale(config.workers)):
                yield client


@contextmanager
def _replaced(cluster: Any, ask: Callable[[], None]) -> Iterator[None]:  # noqa: ANN401
    """Start workers for those that left for good, by asking again and again for what is wanted.

    A nanny starts a worker again that dies, but not one that closes itself; and the cluster ends
    the nanny of a worker that is not back after ``distributed.deploy.lost-worker-timeout``. It
    starts others only when it is scaled, so that a run would wait for ever once all are gone. The
    same holds for a batch job that was ended, also where the number of workers adapts to the work.
    """
    look = PeriodicCallback(ask, _REPLACE_SECONDS * 1000)
    loop = cast("IOLoop", cluster.loop)
    loop.add_callback(look.start)
    try:
        yield
    finally:
        loop.add_callback(look.stop)


@contextmanager
def _address(config: ClusterConfig) -> Iterator[Client]:
    with connect_client(config) as client:
        yield client


@contextmanager
def _slurm(config: ClusterConfig) -> Iterator[Client]:
    with slurm_cluster(config) as cluster:
        _scale(cluster, config)
        # As many jobs as are wanted at this moment, whether they run, wait or are gone.
        again = _replaced(cluster, lambda: cluster.scale(jobs=len(cluster.worker_spec)))
        with Client(cluster) as client, watch_queue(cluster), again:
            yield client


def slurm_cluster(config: ClusterConfig) -> Any:  # noqa: ANN401
    """Return a cluster of SLURM jobs, without any job yet.

    What Dask's own configuration (``jobqueue.slurm``) sets holds unless ``cluster.options`` or
    ``cluster.memory_limit`` say otherwise.

    Raises
    ------
    ClusterError
        ``extra-missing``, or ``cluster-refused`` with what the library says.
    """
    module = load_extra("slurm")
    caps = [f"export {name}={value}" for name, value in THREAD_CAPS.items()]
    prologue = dask.config.get("jobqueue.slurm.job-script-prologue", None) or []
    arguments: dict[str, Any] = {"job_script_prologue": [*prologue, *caps]}
    if dask.config.get("jobqueue.slurm.cores", None) is None:
        arguments |= {"cores": 1, "processes": 1}
    if config.memory_limit != "auto":
        arguments["memory"] = config.memory_limit
    elif "memory" not in config.options and not dask.config.get("jobqueue.slurm.memory", None):
        raise ClusterError(
            "cluster-refused",
            "The memory of a SLURM job is not set",
            fix="Set cluster.memory_limit, e.g. 4GB, or jobqueue.slurm.memory in Dask's own file.",
        )
    if config.tls_ca is not None:
        arguments |= {"security": security(config), "protocol": "tls://"}
    with _refusals("slurm"):
        return module.SLURMCluster(**arguments | config.options)


@contextmanager
def _kubernetes(config: ClusterConfig, *, lasting: bool = False) -> Iterator[Client]:
    module = load_extra("kubernetes")
    arguments = {"name": "bgmatch", "n_workers": config.workers, "shutdown_on_close": not lasting}
    with _refusals("kubernetes"):
        cluster = module.KubeCluster(**arguments | config.options)
    with cluster:
        _scale(cluster, config)
        with Client(cluster) as client:
            yield client


@contextmanager
def _gateway(config: ClusterConfig, *, lasting: bool = False) -> Iterator[Client]:
    module = load_extra("gateway")
    arguments = {"shutdown_on_close": not lasting}
    with _refusals("gateway"):
        gateway = module.Gateway(config.scheduler)
        cluster = gateway.new_cluster(**arguments | config.options)
    with cluster:
        _scale(cluster, config)
        with cluster.get_client(set_as_default=False) as client:
            yield client


def made_for_job(config: ClusterConfig) -> AbstractContextManager[Client]:
    """Make a cluster on Kubernetes or a gateway that goes on when the context ends.

    Whoever works on it last ends it, with `distributed.Client.shutdown`.
    """
    make = {"kubernetes": _kubernetes, "gateway": _gateway}[config.kind]
    return make(config, lasting=True)


_OPEN = {
    "local": _local,
    "address": _address,
    "slurm": _slurm,
    "kubernetes": _kubernetes,
    "gateway": _gateway,
}


@contextmanager
def _refusals(kind: str) -> Iterator[None]:
    """Say in one sentence what a cluster's own library says in its own errors."""
    try:
        yield
    except Exception as error:
        raise ClusterError(
            "cluster-refused",
            f"The {kind} cluster cannot be made: {type(error).__name__}: {error}",
            fix="See docs/cluster.md, and check cluster.options.",
        ) from error


def _scale(cluster: Any, config: ClusterConfig) -> None:  # noqa: ANN401
    if config.max_workers is None:
        cluster.scale(config.workers)
    else:
        cluster.adapt(minimum=config.workers, maximum=config.max_workers)


def _await_workers(client: Client) -> None:
    seconds = float(os.environ.get("BGMATCH_WORKER_TIMEOUT", "60"))
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError as error:
        raise ClusterError(
            "no-workers",
            f"The scheduler has had no worker for {seconds:g} s",
            where=address_of(client),
            fix="Start workers with `dask worker ADDRESS --nthreads 1`.",
        ) from error
