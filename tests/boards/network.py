"""Machines with a network namespace each, joined by cables that can be pulled, slowed and made to lose packets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

TOOLS = ("unshare", "nsenter", "ip", "tc", "nft")


@dataclass(frozen=True)
class Namespace:
    """A network of its own, which is there as long as the process that holds it."""

    holder: int

    @property
    def inside(self) -> tuple[str, ...]:
        """What is put before a command to run it there."""
        user = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
        return ("nsenter", "--target", str(self.holder), *user, "--net")

    def do(self, command: str) -> str:
        return subprocess.run([*self.inside, *command.split()], capture_output=True, text=True, check=True).stdout


@dataclass(frozen=True)
class Machine(Namespace):
    """A machine and its cable, whose other end is a port of the switch."""

    address: str
    switch: Namespace
    port: str

    def down(self) -> None:
        """Take the interface down: programs are told that the network is unreachable."""
        self.do("ip link set eth0 down")

    def up(self) -> None:
        self.do("ip link set eth0 up")

    def unplug(self) -> None:
        """Pull the cable out of the switch: programs are told nothing, what they send is gone."""
        self.switch.do(f"ip link set {self.port} nomaster")

    def plug(self) -> None:
        self.switch.do(f"ip link set {self.port} master bridge")

    def slow(self, megabits: int) -> None:
        """Let so much come in a second."""
        self.switch.do(f"tc qdisc add dev {self.port} root tbf rate {megabits}mbit burst 64kb latency 500ms")

    def lose(self, percent: int) -> None:
        """Drop so many packets of each direction."""
        for where, device in ((self, "eth0"), (self.switch, self.port)):
            where.do("nft add table netdev lossy")
            where.do(f"nft add chain netdev lossy every {{ type filter hook ingress device {device} priority 0 ; }}")
            where.do(f"nft add rule netdev lossy every numgen random mod 100 < {percent} drop")

    def received_bytes(self) -> int:
        """Return how much has come since there is a cable."""
        (port,) = json.loads(self.switch.do(f"ip -json -statistics link show dev {self.port}"))
        return int(port["stats64"]["tx"]["bytes"])


@contextmanager
def network(machines: int) -> Iterator[list[Machine]]:
    """Give so many machines at one switch; skip the test where the system does not permit namespaces."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (packages iproute2, nftables, util-linux)")
    with ExitStack() as stack:
        try:
            own_user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
            switch = Namespace(stack.enter_context(_held(("unshare", *own_user, "--net"))))
            switch.do("ip link add bridge type bridge")
            switch.do("ip link set bridge up")
            found = [_plugged(stack, switch, number) for number in range(1, machines + 1)]
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"the system permits no network namespaces: {getattr(error, 'stderr', '') or error}")
        yield found


def _plugged(stack: ExitStack, switch: Namespace, number: int) -> Machine:
    holder = stack.enter_context(_held((*switch.inside, "unshare", "--net")))
    machine = Machine(holder, f"10.77.0.{number}", switch, f"port{number}")
    switch.do(f"ip link add {machine.port} type veth peer name eth0 netns {holder}")
    switch.do(f"ip link set {machine.port} master bridge up")
    machine.do("ip link set lo up")
    machine.do(f"ip address add {machine.address}/24 dev eth0")
    machine.up()
    return machine


@contextmanager
def _held(command: tuple[str, ...]) -> Iterator[int]:
    """Run ``cat`` by ``command``; give its process when it runs, for then its namespace is there."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([*command, "cat"], **pipes) as holder:
        try:
            holder.stdin.write(b"here\n")
            holder.stdin.flush()
            if holder.stdout.readline() != b"here\n":
                raise OSError(holder.stderr.read().decode().strip())
            yield holder.pid
        finally:
            holder.kill()
