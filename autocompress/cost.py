"""What a shape is said to cost, what an artifact was measured to cost, and what the user allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TypeAlias

from autocompress.errors import ConfigError

Figures: TypeAlias = Mapping[str, float]
"""A value for names of ``LIMITS``, predicted or measured: all of ``FIGURES``, and energy where it is known."""

FIGURES: tuple[str, ...] = ("latency_p50_ms", "latency_p95_ms", "peak_memory_bytes", "size_bytes")
"""What is known of every device, in the units that the names say."""
LIMITS: tuple[str, ...] = (*FIGURES, "energy_mj")
"""What a budget can limit; energy where a device tells it."""


@dataclass(frozen=True)
class Estimate:
    """A predicted value and the interval that should hold the measured one (low <= value <= high)."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float | None) -> Estimate | None:
        """Return the estimate of ``factor`` times as much; ``None`` where that is not known."""
        return None if factor is None else Estimate(factor * self.value, factor * self.low, factor * self.high)


@dataclass(frozen=True)
class Cost:
    """Predicted, never measured.

    Attributes:
        latency_p50_ms: Median time of one inference, in milliseconds.
        latency_p95_ms: 95th percentile of the same, in milliseconds.
        peak_memory_bytes: Peak resident memory of a fresh process that runs the model.
        size_bytes: Size of the exported artifact on disk.
        calibrated: Whether latency and memory come from measurements on the device. If not, outputs that show
            them say "estimated, not calibrated".
        source: Which predictor said so.
        energy_mj: Energy of one inference in millijoules, idle power included; ``None`` where no figure of the
            device's power exists.
    """

    latency_p50_ms: Estimate
    latency_p95_ms: Estimate
    peak_memory_bytes: Estimate
    size_bytes: Estimate
    calibrated: bool
    source: str
    energy_mj: Estimate | None = None

    def figures(self) -> dict[str, float]:
        """Return the central values, by the names of ``LIMITS``."""
        return {name: estimate.value for name, estimate in self._estimates().items()}

    def held(self) -> dict[str, float]:
        """Return what a budget is held against, by the names of ``LIMITS``.

        The upper interval ends if calibrated. The interval of an estimate from a data sheet is so wide that its upper
        end would leave nothing: its central values are held, and outputs label them as not calibrated.
        """
        high = {name: estimate.high for name, estimate in self._estimates().items()}
        return high if self.calibrated else self.figures()

    def _estimates(self) -> dict[str, Estimate]:
        return {name: estimate for name in LIMITS if (estimate := getattr(self, name)) is not None}

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Artifact:
    """A file that runs somewhere.

    Attributes:
        path: The ONNX model or TVM library.
        engine: Key of the engine that runs it (``engines.ENGINES``).
        tokens: Sequence length it is timed at (and, for TVM, compiled for).
        batch: Sequences at once that it is timed with (and, for TVM, compiled for).
    """

    path: Path
    engine: str
    tokens: int
    batch: int = 1

    @property
    def size_bytes(self) -> int:
        """Size on disk, in bytes."""
        return self.path.stat().st_size


@dataclass(frozen=True)
class Measurement:
    """Raw samples of one artifact on one device, with where they come from.

    Attributes:
        samples_ms: Time of each inference after warm-up, in milliseconds, in the order taken.
        peak_memory_bytes: Peak resident memory of the fresh process that ran it.
        base_memory_bytes: Resident memory of that process before it loaded the artifact.
        size_bytes: Size of the artifact on disk.
        device: Name of the device profile.
        engine: The engine, e.g. ``onnxruntime``.
        threads: Threads that the engine was given.
        provenance: Versions, processor and time, as text values.
        energy_mj: Energy of an inference in millijoules, idle power included, ``None`` where nothing tells it; what
            tells it is in the provenance (``energy_source``).
    """

    samples_ms: tuple[float, ...]
    peak_memory_bytes: int
    base_memory_bytes: int
    size_bytes: int
    device: str
    engine: str
    threads: int
    provenance: Mapping[str, str] = field(default_factory=dict)
    energy_mj: float | None = None

    @property
    def latency_p50_ms(self) -> float:
        """Median of the samples, in milliseconds."""
        return median(self.samples_ms)

    @property
    def latency_p95_ms(self) -> float:
        """95th percentile of the samples (nearest rank), in milliseconds."""
        ordered = sorted(self.samples_ms)
        return ordered[max(0, -(-95 * len(ordered) // 100) - 1)]

    def figures(self) -> dict[str, float]:
        """Return the measured values, by the names of ``LIMITS``."""
        return {name: float(value) for name in LIMITS if (value := getattr(self, name)) is not None}

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values, raw samples included."""
        return {**asdict(self), "provenance": dict(self.provenance)}


@dataclass(frozen=True)
class Failure:
    """An artifact that could not be measured; counted and reported, never silently dropped."""

    reason: str


@dataclass(frozen=True)
class Limit:
    """One limit of a budget: absolute, or a multiple of what the teacher needs on the same device."""

    value: float
    relative: bool = False

    def resolve(self, teacher: float) -> float:
        """Return the limit in absolute units."""
        return self.value * teacher if self.relative else self.value


@dataclass(frozen=True)
class Budget:
    """What the user allows; ``None`` leaves a figure free."""

    latency_p50_ms: Limit | None = None
    latency_p95_ms: Limit | None = None
    peak_memory_bytes: Limit | None = None
    size_bytes: Limit | None = None
    energy_mj: Limit | None = None

    def resolve(self, teacher: Figures) -> dict[str, float]:
        """Return the absolute limit of each limited figure.

        Relative limits are taken from ``teacher``: predicted figures for a prediction, measured ones for a
        measurement, so that an error common to both cancels.

        Raises:
            ConfigError: Energy is limited, and nothing tells the teacher's.
        """
        if self.energy_mj is not None and "energy_mj" not in teacher:
            raise ConfigError(
                "The budget limits energy, and nothing tells what the device takes.",
                right="Energy is limited on devices that meter it, or whose profile states power_w.",
                next_step="State power_w in the device's profile and run autocompress profile, or limit latency.",
            )
        limits = {name: getattr(self, name) for name in LIMITS}
        return {name: limit.resolve(teacher[name]) for name, limit in limits.items() if limit is not None}
