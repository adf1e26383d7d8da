"""Say what a shape costs without running it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from autocompress.cost import FIGURES, Cost, Estimate, Measurement
from autocompress.errors import OutOfRangeError
from autocompress.predictors.cost_table import CostTable
from autocompress.predictors.features import (
    BOUNDED,
    BOUNDS,
    FEATURES,
    Row,
    columns,
    features,
    features_many,
    layer_rows,
)
from autocompress.predictors.figure import Figure
from autocompress.predictors.intervals import HeldOut
from autocompress.shape import ModelShape

SLACK = 0.02
"""How far a feature may lie outside its range, in widths of it: another count of classes is no other model."""


class Predictor(Protocol):
    """A way to know costs before they are measured."""

    @property
    def power_w(self) -> float | None:
        """What the device takes while it runs a model, in watts: metered, or stated by its profile; else ``None``."""

    def predict(self, shape: ModelShape, tokens: int) -> Cost:
        """Return what one inference of ``shape`` on ``tokens`` tokens costs.

        Raises:
            OutOfRangeError: The predictor knows nothing about such a shape.
        """

    def predict_many(self, shapes: Iterable[ModelShape], tokens: int) -> CostTable:
        """Return the costs of ``shapes``, those of unknown ones too; the table says which these are."""


@dataclass(frozen=True)
class Sample:
    """What one shape was measured to cost.

    Attributes:
        shape: The model.
        tokens: Length of the sequence.
        latency_p50_ms, latency_p95_ms, peak_memory_bytes, base_memory_bytes, size_bytes: As of ``cost.Measurement``.
        drawn: Whether the shape was drawn at random, as those that will be asked about are; corners and blocks are not.
    """

    shape: ModelShape
    tokens: int
    latency_p50_ms: float
    latency_p95_ms: float
    peak_memory_bytes: int
    base_memory_bytes: int
    size_bytes: int
    drawn: bool = True

    @classmethod
    def of(cls, shape: ModelShape, tokens: int, measurement: Measurement, *, drawn: bool = True) -> Sample:
        """Take from ``measurement`` what a fit needs."""
        return cls(
            shape=shape,
            tokens=tokens,
            latency_p50_ms=measurement.latency_p50_ms,
            latency_p95_ms=measurement.latency_p95_ms,
            peak_memory_bytes=measurement.peak_memory_bytes,
            base_memory_bytes=measurement.base_memory_bytes,
            size_bytes=measurement.size_bytes,
            drawn=drawn,
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
        figures: A fit for each of ``FIGURES``.
        ranges: Lowest and highest value of each of ``features.BOUNDED`` among the samples.
        samples: What was measured.
        provenance: Engine version, processor, date and the like, as text.
        timeline: How the device was while it was profiled, whatever was measured again afterwards.
    """

    device: str
    engine: str
    threads: int
    figures: Mapping[str, Figure]
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
    def power_w(self) -> float | None:
        """What the device takes while it runs a model, in watts: metered, or stated by its profile; else ``None``."""
        return float(self.provenance["power_w"]) if "power_w" in self.provenance else None

    @property
    def held_out(self) -> dict[str, HeldOut]:
        """Errors of each figure on samples that were left out of the fit."""
        return {name: figure.held_out for name, figure in self.figures.items()}

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
        beyond = self._beyond(row)
        overrun = max(0.0, float(beyond.max()))
        if overrun > SLACK and not extrapolate:
            raise self._refusal(beyond, row)
        source = self.source + (", extrapolated" if overrun > SLACK else "")
        estimates = {name: _widen(figure.estimates(row[None])[0], overrun) for name, figure in self.figures.items()}
        energy_mj = estimates["latency_p50_ms"].scaled(self.power_w)
        return Cost(**estimates, calibrated=not self.emulator, source=source, energy_mj=energy_mj)

    def predict_many(self, shapes: Iterable[ModelShape], tokens: int) -> CostTable:
        """See ``Predictor.predict_many``; a ``ShapeTable`` saves making an object of each shape."""
        rows = features_many(shapes, tokens)
        figures = {name: figure.estimates(rows) for name, figure in self.figures.items()}
        if self.power_w is not None:
            figures["energy_mj"] = self.power_w * figures["latency_p50_ms"]
        return CostTable(
            figures=figures,
            known=self._beyond(rows).max(axis=-1) <= SLACK,
            calibrated=not self.emulator,
            source=self.source,
        )

    def layer_shares_ms(self, shape: ModelShape, tokens: int) -> tuple[float, ...]:
        """Return what embeddings and head, then each layer, take of the median latency, in milliseconds.

        The composition says what each takes; the correction of the whole, if there is one, scales all alike.
        """
        figure = self.figures["latency_p50_ms"]
        parts = figure.parts(layer_rows(shape, tokens))
        total = float(figure.estimates(features(shape, tokens)[None])[0, 0])
        return tuple((parts * total / parts.sum()).tolist())

    def _beyond(self, rows: Row) -> Row:
        """Return how far each of ``BOUNDED`` lies outside its range, in widths of it (<= 0: it does not)."""
        low, high = np.array([self.ranges[name] for name in BOUNDED]).T
        width = np.where(high > low, high - low, np.maximum(np.abs(high), 1.0))
        values = columns(rows, BOUNDED)
        beyond: Row = np.maximum(low - values, values - high) / width
        return beyond

    def _refusal(self, beyond: Row, row: Row) -> OutOfRangeError:
        # A user knows tokens and hidden; where these are off, many others are too.
        plain = [name for name in BOUNDS if beyond[BOUNDED.index(name)] > SLACK]
        name = (plain or [BOUNDED[int(beyond.argmax())]])[0]
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
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
            "figures": {name: figure.to_dict() for name, figure in self.figures.items()},
            "samples": [asdict(sample) for sample in self.samples],
            "timeline": [asdict(moment) for moment in self.timeline],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedPredictor:
        """Read what ``to_dict`` wrote; ranges of features that are counted since then are those of the samples."""
        samples = read_samples(data["samples"])
        return cls(
            device=data["device"],
            engine=data["engine"],
            threads=data["threads"],
            figures={name: Figure.from_dict(data["figures"][name]) for name in FIGURES},
            ranges=_ranges(data["ranges"], samples),
            samples=samples,
            provenance=data["provenance"],
            timeline=tuple(Moment(**moment) for moment in data.get("timeline", ())),
        )


def _ranges(known: Mapping[str, Sequence[float]], samples: Sequence[Sample]) -> dict[str, tuple[float, float]]:
    if set(known).issuperset(BOUNDED):
        return {name: (known[name][0], known[name][1]) for name in BOUNDED}
    rows = columns(np.array([features(sample.shape, sample.tokens) for sample in samples]), BOUNDED)
    counted = {name: (float(column.min()), float(column.max())) for name, column in zip(BOUNDED, rows.T, strict=True)}
    return counted | {name: (low, high) for name, (low, high) in known.items() if name in counted}


def read_samples(data: Iterable[Mapping[str, Any]]) -> tuple[Sample, ...]:
    """Read samples as ``to_dict`` wrote them."""
    return tuple(Sample(**{**sample, "shape": ModelShape.from_dict(sample["shape"])}) for sample in data)


def _widen(estimate: Row, overrun: float) -> Estimate:
    value, low, high = estimate.tolist()
    return Estimate(value, low / (1 + overrun), high * (1 + overrun))
