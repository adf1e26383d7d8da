"""Say what a shape costs without running it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from autocompress.cost import Cost, Estimate, Measurement
from autocompress.errors import OutOfRangeError
from autocompress.predictors.features import BOUNDED, FEATURES, Row, columns, features
from autocompress.predictors.intervals import HeldOut
from autocompress.predictors.linear import Linear
from autocompress.shape import ModelShape

FIGURES = ("latency_p50_ms", "latency_p95_ms", "peak_memory_bytes", "size_bytes")
SLACK = 0.02
"""How far a feature may lie outside its range, in widths of it: another count of classes is no other model."""


class Predictor(Protocol):
    """A way to know costs before they are measured."""

    def predict(self, shape: ModelShape, tokens: int) -> Cost:
        """Return what one inference of ``shape`` on ``tokens`` tokens costs.

        Raises:
            OutOfRangeError: The predictor knows nothing about such a shape.
        """


def predict_many(predictor: Predictor, shapes: Iterable[ModelShape], tokens: int) -> tuple[Cost, ...]:
    """Return the cost of each shape."""
    return tuple(predictor.predict(shape, tokens) for shape in shapes)


@dataclass(frozen=True)
class Sample:
    """What one shape was measured to cost."""

    shape: ModelShape
    tokens: int
    latency_p50_ms: float
    latency_p95_ms: float
    peak_memory_bytes: int
    base_memory_bytes: int
    size_bytes: int

    @classmethod
    def of(cls, shape: ModelShape, tokens: int, measurement: Measurement) -> Sample:
        """Take from ``measurement`` what a fit needs."""
        return cls(
            shape=shape,
            tokens=tokens,
            latency_p50_ms=measurement.latency_p50_ms,
            latency_p95_ms=measurement.latency_p95_ms,
            peak_memory_bytes=measurement.peak_memory_bytes,
            base_memory_bytes=measurement.base_memory_bytes,
            size_bytes=measurement.size_bytes,
        )


@dataclass(frozen=True)
class Moment:
    """How the device was when a sample was taken.

    Attributes:
        start_s: When, in seconds on any clock that all moments share.
        reference_ms: What the reference kernel took; ``None`` where it was not timed.
        waited_share: Share of the sample's time in which it waited for a processor (0 to 1).
        slow: Whether the moment lies in an episode in which the device was slow.
    """

    start_s: float
    reference_ms: float | None
    waited_share: float
    slow: bool


@dataclass(frozen=True)
class FittedPredictor:
    """Costs fitted on measured samples of one engine at one thread count on one device.

    Attributes:
        device: Name of the device profile.
        engine: Key of ``engines.ENGINES``.
        threads: Threads of the engine.
        models: A fit for each of ``FIGURES``.
        ranges: Lowest and highest value of each of ``features.BOUNDED`` among the samples.
        samples: What was measured.
        provenance: Engine version, processor, date and the like, as text.
        timeline: How the device was while it was profiled, whatever was measured again afterwards.
    """

    device: str
    engine: str
    threads: int
    models: Mapping[str, Linear]
    ranges: Mapping[str, tuple[float, float]]
    samples: tuple[Sample, ...]
    provenance: Mapping[str, str] = field(default_factory=dict)
    timeline: tuple[Moment, ...] = ()

    @property
    def source(self) -> str:
        """Which predictor this is, in a few words."""
        said = f"{self.device}, {self.engine}, {self.threads} threads, fitted on {len(self.samples)} samples"
        return f"{said} that {self.emulator} emulated, not calibrated" if self.emulator else said

    @property
    def emulator(self) -> str:
        """What emulated the device, "" where it is real."""
        return self.provenance.get("emulated", "")

    @property
    def held_out(self) -> dict[str, HeldOut]:
        """Errors of each figure on samples that were left out of the fit."""
        return {name: model.held_out for name, model in self.models.items()}

    def predict(self, shape: ModelShape, tokens: int, *, extrapolate: bool = False) -> Cost:
        """Return the cost of ``shape`` on one sequence of ``tokens`` tokens, with 90 % intervals.

        Args:
            shape: What is asked about.
            tokens: Length of the sequence.
            extrapolate: Answer outside the fitted range too. The source then says so, and both interval ends move
                out by the factor 1 + overrun: how far the farthest feature lies outside, in widths of its range.

        Raises:
            OutOfRangeError: A feature is outside its range, unless ``extrapolate``.
        """
        row = features(shape, tokens)
        name, overrun = self._overrun(row)
        if overrun > SLACK and not extrapolate:
            raise self._refusal(name, row)
        outside = overrun > SLACK
        figures = {figure: _widen(model.estimate(row), overrun) for figure, model in self.models.items()}
        source = self.source + (", extrapolated" if outside else "")
        return Cost(**figures, calibrated=not self.emulator, source=source)

    def _overrun(self, row: Row) -> tuple[str, float]:
        """Return a feature outside its range, and how far the farthest is, in widths of its range (0: none is)."""
        low, high = np.array([self.ranges[name] for name in BOUNDED]).T
        width = np.where(high > low, high - low, np.maximum(np.abs(high), 1.0))
        values = columns(row, BOUNDED)
        beyond = dict(zip(BOUNDED, np.maximum(low - values, values - high) / width, strict=True))
        # A user knows tokens and hidden; where these are off, many others are too.
        plain = [name for name in ("tokens", "hidden") if beyond[name] > SLACK]
        farthest = max(beyond, key=beyond.__getitem__)
        return (plain or [farthest])[0], max(0.0, float(beyond[farthest]))

    def _refusal(self, name: str, row: Row) -> OutOfRangeError:
        low, high = self.ranges[name]
        return OutOfRangeError(
            f"The shape has {name} = {row[FEATURES.index(name)]:g}, which this predictor never saw ({self.source}).",
            right=f"It was fitted on {name} from {low:g} to {high:g}.",
            next_step="Profile the device around this model (autocompress profile), or allow extrapolation.",
        )

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values; ``from_dict`` reads them back."""
        return {
            "device": self.device,
            "engine": self.engine,
            "threads": self.threads,
            "provenance": dict(self.provenance),
            "held_out": {name: asdict(errors) for name, errors in self.held_out.items()},
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
            "models": {name: model.to_dict() for name, model in self.models.items()},
            "samples": [asdict(sample) for sample in self.samples],
            "timeline": [asdict(moment) for moment in self.timeline],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedPredictor:
        """Read what ``to_dict`` wrote."""
        return cls(
            device=data["device"],
            engine=data["engine"],
            threads=data["threads"],
            models={name: Linear.from_dict(data["models"][name]) for name in FIGURES},
            ranges={name: (data["ranges"][name][0], data["ranges"][name][1]) for name in BOUNDED},
            samples=tuple(
                Sample(**{**sample, "shape": ModelShape.from_dict(sample["shape"])}) for sample in data["samples"]
            ),
            provenance=data["provenance"],
            timeline=tuple(Moment(**moment) for moment in data.get("timeline", ())),
        )


def _widen(estimate: Estimate, overrun: float) -> Estimate:
    return Estimate(estimate.value, estimate.low / (1 + overrun), estimate.high * (1 + overrun))
