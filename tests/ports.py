"""Ports for servers of tests that cannot take a free one by themselves."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def reserved_ports(number: int) -> Iterator[tuple[int, ...]]:
    """Yield ports on loopback that the kernel gives to nobody else until the context ends.

    They are bound and do not listen, so that a server which asks for one by its number gets it.
    """
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in held:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", 0))
        yield tuple(one.getsockname()[1] for one in held)
