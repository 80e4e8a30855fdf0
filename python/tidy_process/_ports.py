"""Ports for servers that are to be started."""

from __future__ import annotations

import socket


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that was free a moment ago, and that the kernel gives to no other caller for now.

    The port is left in TIME_WAIT, so ``bind`` to port 0 passes it over for a minute, while a server
    with ``SO_REUSEADDR``, as most have it, takes it at once.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, 0))
        server.listen(1)
        port: int = server.getsockname()[1]
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.connect((host, port))
            accepted, _ = server.accept()
            # The end that closes first is the one that stays in TIME_WAIT.
            accepted.close()
    return port
