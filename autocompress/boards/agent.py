"""The agent of a board: TVM's RPC server and the functions of ``service``, started again whenever it ends.

Run as ``python -m autocompress.boards.agent``. It needs numpy, psutil, apache-tvm and apache-tvm-ffi; ONNX Runtime to
measure ONNX models; and neither torch, transformers, pydantic nor typer.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from autocompress.boards.address import PORT, Place, parse_place
from autocompress.boards.orphans import die_with
from autocompress.boards.service import functions
from autocompress.boards.store import Store
from autocompress.devices.paths import home
from autocompress.errors import AutoCompressError, ConfigError

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"
SILENCE_S = 5.0
"""Seconds for which a caller may say nothing while it connects: it would keep all others waiting."""
GONE_S = 20
"""Seconds after which a caller that no longer acknowledges anything counts as gone, and the next one is served."""
PAUSE_S = 0.5
"""Seconds before a server that ended is started again."""
WHY_INSECURE = (
    "Warning: TVM's RPC has no authentication. Whoever reaches {host}:{port} can run any program on this machine as"
    " this user.\nBind to loopback and use SSH (autocompress device add NAME --ssh USER@HOST) wherever others share the"
    " network."
)


@dataclass(frozen=True)
class Service:
    """Where an agent listens.

    Attributes:
        host: Address that it binds.
        port: Port that it binds.
        tracker: A tracker at which it registers, if any.
        key: The name under which it does; without a tracker it has none.
    """

    host: str = LOOPBACK
    port: int = PORT
    tracker: Place | None = None
    key: str = ""

    @property
    def store(self) -> Store:
        """Where it puts artifacts; a port is one agent's alone."""
        return Store(home() / "agent" / str(self.port))


def serve(service: Service, *, say: Callable[[str], None], until_input_ends: bool = False) -> None:
    """Serve until the process is ended, or until standard input ends.

    Args:
        service: Where.
        say: Prints a line.
        until_input_ends: For ``ssh``, which closes it when the link is gone.

    Raises:
        ConfigError: The address cannot be bound, or the tracker is given no key.
    """
    _check(service)
    if service.host != LOOPBACK:
        say(WHY_INSECURE.format(host=service.host, port=service.port))
    if until_input_ends:
        threading.Thread(target=_end_with_input, daemon=True).start()
    service.store.clear()
    command = [sys.executable, "-m", "autocompress.boards.agent", "--once", *_arguments(service)]
    while True:
        server = subprocess.Popen([*command, "--parent", str(os.getpid())], stdin=subprocess.DEVNULL)
        try:
            code = server.wait()
        except BaseException:
            server.kill()
            raise
        say(f"The server ended ({code}) and is started again.")
        time.sleep(PAUSE_S)


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)  # The server dies with this process.


def serve_once(service: Service) -> None:
    """Serve until a session fails so badly that the server must be started anew."""
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # TVM would take it along, were it installed.
    socket.setdefaulttimeout(SILENCE_S)
    import tvm_ffi
    from tvm.rpc import server

    _patient(server)
    for name, function in functions(service.store).items():
        tvm_ffi.register_global_func(name, function)
    tracker = service.tracker and (service.tracker.host, service.tracker.port)
    key = service.key if tracker else ""
    # A tracker on this machine would tell others that the agent is at their own loopback.
    address = None if service.host in (LOOPBACK, EVERYWHERE) else service.host
    state = server.PopenRPCServerState(
        service.host,
        service.port,
        service.port + 1,
        tracker_addr=tracker,
        key=key,
        custom_addr=address,
        silent=True,
    )
    sys.stdout.write(f"Serving at {service.host}:{service.port}\n")
    sys.stdout.flush()
    state.thread.join()


def _patient(server: Any) -> None:
    """Let connected callers take their time, and let the process of a session die with the server."""
    serving, loop = server._serving, server._serve_loop

    def serve_patiently(sock: socket.socket, *others: Any) -> None:
        sock.settimeout(None)
        _notice_silence(sock)
        serving(sock, *others)

    def loop_while_served(*everything: Any) -> None:
        die_with(agent)
        loop(*everything)

    agent = os.getpid()
    server._serving, server._serve_loop = serve_patiently, loop_while_served


def _notice_silence(sock: socket.socket) -> None:
    """Let the system end a connection whose other end vanished without a word. Linux only."""
    if not sys.platform.startswith("linux"):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, GONE_S // 4)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)  # Often: single packets are lost on a bad network.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * GONE_S)


def _check(service: Service) -> None:
    if service.tracker and not service.key:
        raise ConfigError(
            f"The agent is to register at {service.tracker} without a key.",
            right="Hosts ask the tracker for a key.",
            next_step="Add --key, for example --key rpi4.",
        )
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((service.host, service.port))
    except OSError as error:
        raise ConfigError(
            f"{service.host}:{service.port} cannot be bound ({error.strerror}).",
            right="The port is free, and the address is one of this machine.",
            next_step="Name another one with --port.",
        ) from None


def _arguments(service: Service) -> list[str]:
    found = ["--port", str(service.port), "--key", service.key]
    if service.host != LOOPBACK:
        found += ["--insecure-bind", service.host]
    return found + (["--tracker", str(service.tracker)] if service.tracker else [])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m autocompress.boards.agent", description=__doc__)
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--insecure-bind", default=LOOPBACK, metavar="HOST", help="an address other than loopback")
    parser.add_argument("--tracker", metavar="HOST:PORT", help="register at a tracker")
    parser.add_argument("--key", default="", help="the name under which it registers")
    parser.add_argument("--until-input-ends", action="store_true", help="end when standard input does")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve as the arguments say."""
    asked = _parser().parse_args(arguments)
    tracker = parse_place(asked.tracker) if asked.tracker else None
    service = Service(asked.insecure_bind, asked.port, tracker, asked.key)
    if asked.once:
        die_with(asked.parent)
        serve_once(service)
        return
    try:
        serve(service, say=_print, until_input_ends=asked.until_input_ends)
    except AutoCompressError as error:
        _print(f"Error: {error.wrong}\nRight: {error.right}\nNext:  {error.next_step}")
        sys.exit(error.exit_code)


def _print(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
