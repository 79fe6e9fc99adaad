"""Servers that keep a client waiting, each in threads of the test's own; `with` one gives its port."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

Handle = Callable[[socket.socket], None]


@contextmanager
def listening(handle: Handle | None = None, *, backlog: int = 16) -> Iterator[int]:
    """A port; `handle` gets each connection, in a thread, and without it nobody accepts one."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(backlog)

        def serve(connection: socket.socket, handle: Handle) -> None:
            with connection, suppress(OSError):
                handle(connection)

        def accept(handle: Handle) -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    stack.callback(connection.close)
                    threading.Thread(target=serve, args=(connection, handle), daemon=True).start()

        if handle:
            stack.callback(server.shutdown, socket.SHUT_RDWR)  # or `accept` would hold the port
            threading.Thread(target=accept, args=(handle,), daemon=True).start()
        yield server.getsockname()[1]


@contextmanager
def black_hole() -> Iterator[int]:
    """Whoever connects gets no answer at all: the queue of connections is full."""
    with listening(backlog=0) as port, ExitStack() as stack:
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        time.sleep(0.05)
        yield port


def says_nothing(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        pass


def answers(answer: bytes) -> Handle:
    """The answer to whatever is asked, at once."""

    def handle(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(answer)

    return handle


def a_byte_at_a_time(answer: bytes) -> Handle:
    """Each read of the client has something, and the answer has no end."""

    def handle(connection: socket.socket) -> None:
        for byte in answer + b" " * 10_000:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    return handle


SLOW_HTTP = a_byte_at_a_time(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n{")
SLOW_HTTP_2 = a_byte_at_a_time(b"\0\0\0\4\0\0\0\0\0" * 1000)
"""Empty frames of settings, with which a server begins."""
