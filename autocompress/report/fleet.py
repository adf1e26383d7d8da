"""What the devices of a fleet are given: to each its own best model, and to all one that fits them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from autocompress.report.values import GoalRow, LimitRow, Verdict, read_value


@dataclass(frozen=True)
class FrontPoint:
    """A candidate that no other beats in score without being slower on the device.

    Attributes:
        number: Its place in the sequence of candidates.
        latency_p50_ms: Predicted.
        score: On validation documents (0 to 1).
        plan_summary: What it does to the start, in one line.
    """

    number: int
    latency_p50_ms: float
    score: float
    plan_summary: str


@dataclass(frozen=True)
class FleetRow:
    """A model on one device of a fleet.

    Attributes:
        device: Its name in the fleet.
        where: Profile, engine and threads, in words.
        model: As the reports of all devices call it, e.g. ``candidate 2``.
        verdict: As of ``RunReport``.
        blocked: Which limit or goal blocks, in words; empty on a pass.
        goal: Its score against the teacher's.
        limits: One row a figure of ``cost.LIMITS``.
        package: Folder of its package, beside the report.
        page: File of the device's own report.
        front: Candidates that are worth a choice there, the fastest first.
    """

    device: str
    where: str
    model: str
    verdict: Verdict
    blocked: str
    goal: GoalRow | None
    limits: tuple[LimitRow, ...]
    package: str
    page: str
    front: tuple[FrontPoint, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the device is served, as far as was measured."""
        return self.verdict in ("pass", "estimated")


@dataclass(frozen=True)
class FleetReport:
    """See the module.

    Attributes:
        own: A row a device, with the best model that fits it.
        shared: A row a device, with the best model that fits them all; empty where none that was made does.
    """

    own: tuple[FleetRow, ...]
    shared: tuple[FleetRow, ...]

    @property
    def served(self) -> bool:
        """Whether every device is given a model that fits it."""
        return all(row.fits for row in self.own)

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values; ``from_dict`` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> FleetReport:
        """Read what ``to_dict`` wrote, also after a trip through JSON.

        Raises:
            StorageError: A field is missing or unknown.
        """
        return read_value(cls, data)
