"""Fit a predictor on measured samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from autocompress.errors import DeviceError
from autocompress.predictors.families import FAMILIES
from autocompress.predictors.features import BOUNDED, LATENCY, MEMORY, SIZE, columns, features
from autocompress.predictors.figure import fit_figure, scale_figure
from autocompress.predictors.intervals import FEWEST_SAMPLES
from autocompress.predictors.predictor import FittedPredictor, Moment, Sample
from autocompress.predictors.ridge import Ridge
from autocompress.predictors.transfer import transfer

COMPOSED = {name: family for name, family in FAMILIES.items() if name.startswith("ridge")}
"""Families of latency: the sum of what kernels cost, alone or corrected as a whole, so that layers have shares."""
MEMORY_RIDGE = 1e-5
SIZE_RIDGE = 1e-9
"""Bytes have no noise, so nothing may be shrunk."""


def fit(
    samples: Sequence[Sample],
    *,
    device: str,
    engine: str,
    threads: int,
    provenance: Mapping[str, str],
    timeline: tuple[Moment, ...] = (),
    known: Iterable[FittedPredictor] = (),
) -> FittedPredictor:
    """Fit latency, memory and size.

    Latency is a composition: every kernel's work, counted in columns, times what it costs (a non-negative ridge),
    and where cross-validation says that it helps, a correction of the whole (``families.FAMILIES``); or near a
    multiple of what it costs on a known device (``transfer``), if that foresees as well. Peak memory is
    the process and engine, and multiples of weights and activations; size is the weights as packed, and what the
    container adds. The 95th percentile is the median times the median ratio of the two.

    Args:
        samples: At least ``FEWEST_SAMPLES``; 16 or more make it useful. See ``sampling.sample_shapes``.
        device: Name of the device profile.
        engine: The engine that ran the samples.
        threads: Threads that it was given.
        provenance: Engine version, processor, date and the like, as text.
        timeline: How the device was meanwhile.
        known: Predictors of other devices with this engine, from which few samples are enough to go on.

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
    drawn = np.array([sample.drawn for sample in samples])
    p50_ms, p95_ms, peak_bytes, size_bytes = (
        np.array([float(getattr(sample, name)) for sample in samples])
        for name in ("latency_p50_ms", "latency_p95_ms", "peak_memory_bytes", "size_bytes")
    )
    families = {**transfer(known, rows, p50_ms), **COMPOSED}
    medians, out_of_fold = fit_figure(families, rows, p50_ms, LATENCY, drawn=drawn)
    return FittedPredictor(
        device=device,
        engine=engine,
        threads=threads,
        figures={
            "latency_p50_ms": medians,
            "latency_p95_ms": scale_figure(medians, out_of_fold, p95_ms / p50_ms, p95_ms, drawn=drawn),
            "peak_memory_bytes": fit_figure({"ridge": Ridge(MEMORY_RIDGE)}, rows, peak_bytes, MEMORY, drawn=drawn)[0],
            "size_bytes": fit_figure({"ridge": Ridge(SIZE_RIDGE)}, rows, size_bytes, SIZE, drawn=drawn)[0],
        },
        ranges={
            name: (float(column.min()), float(column.max()))
            for name, column in zip(BOUNDED, columns(rows, BOUNDED).T, strict=True)
        },
        samples=tuple(samples),
        provenance=dict(provenance),
        timeline=timeline,
    )
