"""Run on another machine: measure an artifact, so many times, on a board that was added there."""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass

from autocompress.boards.address import load
from autocompress.boards.connection import Patience
from autocompress.boards.remote import RemoteRunner
from autocompress.boards.ssh import reach
from autocompress.cost import Artifact, Failure, Measurement
from autocompress.errors import DeviceError
from autocompress.profiling.timing import Timing


@dataclass(frozen=True)
class Order:
    """What is to be done."""

    board: str
    artifact: Artifact
    timing: Timing
    patience: Patience
    times: int = 1


def fulfil(order: Order) -> list[Measurement | Failure] | DeviceError:
    address = load(order.board)
    assert address is not None
    with reach(order.board, address, order.patience) as way, RemoteRunner(way, order.board) as runner:
        try:
            return [runner.run(order.artifact, order.timing) for _ in range(order.times)]
        except DeviceError as error:
            return error


if __name__ == "__main__":
    sys.stdout.buffer.write(pickle.dumps(fulfil(pickle.load(sys.stdin.buffer))))
