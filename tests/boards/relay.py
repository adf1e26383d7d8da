"""A way to an agent that can be cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from autocompress.boards.address import Place


@dataclass
class Traffic:
    """What a relay saw: bytes towards the agent, and how often it cut the link."""

    sent_bytes: int = 0
    cuts: int = 0


@contextmanager
def relay(to: Place, *, cut_after_bytes: float = float("inf"), port: int = 0) -> Iterator[tuple[Place, Traffic]]:
    """Pass bytes on to ``to``, and cut the link once, after so many; give where, and what was seen."""
    traffic = Traffic()
    open_sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", port)) as listener:
        place = Place(*listener.getsockname())

        def start(target, *arguments) -> None:
            threads.append(threading.Thread(target=target, args=arguments))
            threads[-1].start()

        def accept() -> None:
            while True:
                try:
                    near, _ = listener.accept()
                except OSError:
                    return
                open_sockets.append(near)
                try:
                    far = socket.create_connection((to.host, to.port))
                except OSError:
                    hang_up(near)
                    continue
                open_sockets.append(far)
                start(forward, near, far)
                start(carry, far, near)

        def forward(near: socket.socket, far: socket.socket) -> None:
            def spend(count: int) -> None:
                traffic.sent_bytes += count
                if traffic.sent_bytes > cut_after_bytes and not traffic.cuts:
                    traffic.cuts += 1
                    raise ConnectionAbortedError

            carry(near, far, spend)

        def carry(source: socket.socket, sink: socket.socket, spend=lambda count: None) -> None:
            try:
                while data := source.recv(65536):
                    spend(len(data))
                    sink.sendall(data)
            except OSError:
                pass
            hang_up(source, sink)

        start(accept)
        try:
            yield place, traffic
        finally:
            hang_up(listener, *open_sockets)
            for thread in threads:
                thread.join()
            for one in open_sockets:
                one.close()


def hang_up(*sockets: socket.socket) -> None:
    for one in sockets:
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue
