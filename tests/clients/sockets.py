"""Servers between a client and stacktoken that close connections, stay silent, delay data, or use
TLS."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path


class Listener:
    """Passes each connection to a function, in a new thread."""

    def __init__(self, handle: Callable[[socket.socket], None]) -> None:
        self.handle = handle
        self.visited = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                threading.Thread(target=self.serve, args=[connection], daemon=True).start()
                self.visited.set()

    def serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self.handle(connection)

    def close(self) -> None:
        # A closed socket keeps listening while a thread is in accept(); shutdown() wakes the
        # thread.
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def slam(connection: socket.socket) -> None:
    """Closes the connection at once."""
    connection.shutdown(socket.SHUT_RDWR)


def say_nothing(connection: socket.socket) -> None:
    """Reads all data and never answers."""
    while connection.recv(65536):
        pass


def pass_on(
    server: str, hold: float = 0, change: tuple[bytes, bytes] = (b"", b"")
) -> Callable[[socket.socket], None]:
    """Forwards data in both directions. Data from the server is delayed by `hold` seconds, and each
    `change[0]` in it is replaced by `change[1]`."""
    host, port = server.split(":")

    def both_ways(connection: socket.socket) -> None:
        with socket.create_connection((host, int(port))) as onward:
            back = threading.Thread(target=copy, args=[onward, connection, hold, change])
            back.daemon = True
            back.start()
            copy(connection, onward)
            back.join()

    return both_ways


def copy(
    source: socket.socket,
    to: socket.socket,
    hold: float = 0,
    change: tuple[bytes, bytes] = (b"", b""),
) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            time.sleep(hold)
            to.sendall(data.replace(*change) if change[0] else data)
    with contextlib.suppress(OSError):
        to.shutdown(socket.SHUT_RDWR)


def behind_tls(server: str, certificate: Path, key: Path) -> Callable[[socket.socket], None]:
    """Forwards data in both directions. The client's side of the connection uses TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    plain = pass_on(server)

    def handshake(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as trusted:
            plain(trusted)

    return handshake
