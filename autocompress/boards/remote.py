"""Measure artifacts on a board."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autocompress.boards.connection import Connection
from autocompress.boards.uploads import Uploads
from autocompress.cost import Artifact, Failure, Measurement
from autocompress.profiling.runner import read_answer
from autocompress.profiling.timing import Timing
from autocompress.profiling.worker import Request


@dataclass
class RemoteRunner:
    """Runs artifacts on a board, as ``profiling.runner.Runner`` asks.

    An artifact is sent once, and removed when ``keeps`` others were sent or the ``with`` block of the runner is left.

    Attributes:
        connection: The way to the board.
        device: Name of the profile that it is measured as.
        keeps: Most artifacts that it holds on the board.
    """

    connection: Connection
    device: str
    keeps: int = 8
    _uploads: Uploads = field(init=False)

    def __post_init__(self) -> None:
        self._uploads = Uploads(self.connection, self.keeps)

    def __enter__(self) -> RemoteRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def run(
        self, artifact: Artifact, timing: Timing, *, provenance: Mapping[str, str] | None = None
    ) -> Measurement | Failure:
        """See ``Runner.run``. What a full disk, a crash or a hang of the worker makes of it is a ``Failure``.

        So are sessions that break one after the other although the board answers in between: the artifact may be why.

        Raises:
            DeviceError: The board cannot be reached.
        """
        request, step = Request.of(artifact, timing).to_json(), f"measuring {artifact.path.name}"
        answer = self._uploads.ask("measure", artifact.path, request, timeout_s=timing.limit_s, step=step)
        facts = {"board": str(self.connection), **(provenance or {})}
        return read_answer(answer, artifact, timing, device=self.device, provenance=facts)

    def clear(self) -> None:
        """Remove from the board what was sent; a board that is gone keeps it until its agent starts anew."""
        self._uploads.clear()
