"""Measure artifacts on a board."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autocompress.boards.caller import Call
from autocompress.boards.connection import Connection
from autocompress.boards.link import BrokenLinkError, Link
from autocompress.boards.service import PREFIX
from autocompress.boards.store import content_name
from autocompress.cost import Artifact, Failure, Measurement
from autocompress.errors import DeviceError
from autocompress.profiling.runner import read_answer
from autocompress.profiling.timing import Timing
from autocompress.profiling.worker import Request

PART_BYTES = 2**21
"""Bytes of an artifact in one call, so that a slow network and a cut one can be told apart."""
GRACE_S = 10.0
"""Seconds that the agent has, beyond a measurement's own limit, to say that it was reached."""


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
    _sent: dict[str, None] = field(default_factory=dict)

    def __enter__(self) -> RemoteRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def run(
        self, artifact: Artifact, timing: Timing, *, provenance: Mapping[str, str] | None = None
    ) -> Measurement | Failure:
        """See ``Runner.run``. What a full disk, a crash or a hang of the worker makes of it is a ``Failure``.

        So is a link that breaks at every try although the board answers in between: the artifact may be why.

        Raises:
            DeviceError: The board cannot be reached.
        """
        name = content_name(artifact.path)
        self._sent[name] = self._sent.pop(name, None)  # The last that was used stands last.

        def once() -> dict[str, Any]:
            with self.connection.session(lasts_s=self._lasts_s(artifact, timing)) as link:
                return self._send(link, artifact, name) or self._measure(link, artifact, name, timing)

        try:
            answer = self.connection.attempt(f"measuring {artifact.path.name}", once)
        except DeviceError as error:
            answer = self._blame(error)
        facts = {"board": str(self.connection), **(provenance or {})}
        return read_answer(answer, artifact, timing, device=self.device, provenance=facts)

    def clear(self) -> None:
        """Remove from the board what was sent; a board that is gone keeps it until its agent starts anew."""
        calls = [Call(PREFIX + "remove", (name,)) for name in self._sent]
        self._sent.clear()
        if not calls:
            return
        call_s = self.connection.patience.call_s
        try:
            with self.connection.session(lasts_s=2 * call_s) as link:
                for call in calls:
                    link.call(call, timeout_s=call_s)
        except BrokenLinkError:
            return

    def _lasts_s(self, artifact: Artifact, timing: Timing) -> float:
        """Return the seconds in which a session must be over."""
        calls = 2 + -(-artifact.size_bytes // PART_BYTES)
        return timing.limit_s + GRACE_S + calls * self.connection.patience.call_s

    def _send(self, link: Link, artifact: Artifact, name: str) -> dict[str, Any] | None:
        """Send what the board lacks of an artifact; return the failure, if it is one."""
        call_s, total = self.connection.patience.call_s, artifact.size_bytes
        for old in list(self._sent)[: -self.keeps]:
            link.call(Call(PREFIX + "remove", (old,)), timeout_s=call_s)
            del self._sent[old]
        answer = link.call(Call(PREFIX + "held", (name,)), timeout_s=call_s)
        while "failure" not in answer and (offset := int(answer["bytes"])) < total:
            part = Call(PREFIX + "put", (name, offset, total), str(artifact.path), offset, PART_BYTES)
            answer = link.call(part, timeout_s=call_s)
        return answer if "failure" in answer else None

    def _measure(self, link: Link, artifact: Artifact, name: str, timing: Timing) -> dict[str, Any]:
        request = Request.of(artifact, timing).to_json()
        call = Call(PREFIX + "measure", (name, request, timing.limit_s))
        return link.call(call, timeout_s=timing.limit_s + GRACE_S)

    def _blame(self, error: DeviceError) -> dict[str, Any]:
        """Return a failure of the artifact if the board still answers.

        Raises:
            DeviceError: It does not.
        """
        try:
            self.connection.ask("ping", step="looking whether it is there at all")  # It may just be starting again.
        except DeviceError:
            raise error from None
        return {"failure": f"crash: {error.wrong}"}
