"""Fit a predictor on measured samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from autocompress.errors import DeviceError
from autocompress.predictors.features import BOUNDED, columns, features
from autocompress.predictors.intervals import FEWEST_SAMPLES
from autocompress.predictors.latency import fit_median, fit_tail
from autocompress.predictors.memory import fit_memory
from autocompress.predictors.predictor import FittedPredictor, Moment, Sample
from autocompress.predictors.size import fit_size


def fit(
    samples: Sequence[Sample],
    *,
    device: str,
    engine: str,
    threads: int,
    provenance: Mapping[str, str],
    timeline: tuple[Moment, ...] = (),
) -> FittedPredictor:
    """Fit latency, memory and size.

    Args:
        samples: At least ``FEWEST_SAMPLES``; 16 or more make it useful. See ``sampling.sample_shapes``.
        device: Name of the device profile.
        engine: The engine that ran the samples.
        threads: Threads that it was given.
        provenance: Engine version, processor, date and the like, as text.
        timeline: How the device was meanwhile.

    Raises:
        DeviceError: There are too few samples for an interval.
    """
    if len(samples) < FEWEST_SAMPLES:
        raise DeviceError(
            f"Only {len(samples)} shapes were measured on {device!r}.",
            right=f"A predictor needs at least {FEWEST_SAMPLES}, better 24.",
            next_step="Look at why measurements failed, or raise the number of samples.",
        )
    rows = np.array([features(sample.shape, sample.tokens) for sample in samples])
    p50_ms = np.array([sample.latency_p50_ms for sample in samples])
    p95_ms = np.array([sample.latency_p95_ms for sample in samples])
    medians = fit_median(rows, p50_ms)
    return FittedPredictor(
        device=device,
        engine=engine,
        threads=threads,
        models={
            "latency_p50_ms": medians,
            "latency_p95_ms": fit_tail(rows, p50_ms, p95_ms, medians),
            "peak_memory_bytes": fit_memory(
                rows,
                np.array([float(sample.peak_memory_bytes) for sample in samples]),
                np.array([float(sample.base_memory_bytes) for sample in samples]),
            ),
            "size_bytes": fit_size(rows, np.array([float(sample.size_bytes) for sample in samples])),
        },
        ranges={
            name: (float(column.min()), float(column.max()))
            for name, column in zip(BOUNDED, columns(rows, BOUNDED).T, strict=True)
        },
        samples=tuple(samples),
        provenance=dict(provenance),
        timeline=timeline,
    )
