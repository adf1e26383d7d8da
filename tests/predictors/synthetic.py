"""Samples of a device whose costs are known exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autocompress.compiler.graph import weight_specs
from autocompress.engines import stored_bits
from autocompress.predictors.features import FEATURES, features
from autocompress.predictors.fit import fit
from autocompress.predictors.predictor import FittedPredictor, Sample
from autocompress.predictors.sampling import sample_shapes
from autocompress.shape import LayerShape, ModelShape

TEACHER = ModelShape("bert", 1000, 64, 128, 128, (LayerShape(4, 32, 512),) * 4, 2)
TOKENS = 32
TRUTH_MS = {
    "constant": 0.02,
    "layers": 0.03,
    "gemm_macs_32": 2e-8,
    "gemm_macs_16": 1e-8,
    "gemm_macs_8": 5e-9,
    "gemm_macs_4": 7e-9,
    "gemm_macs_3": 75e-10,
    "gemm_macs_2": 8e-9,
    "quantized_elements_8": 1e-6,
    "quantized_elements_4": 2e-6,
    "attention_macs": 3e-8,
    "softmax_elements": 2e-6,
    "ffn_elements": 3e-6,
}
BASE_BYTES, ENGINE_BYTES, TAIL = 40_000_000, 25_000_000, 1.25


def true_ms(shape: ModelShape, tokens: int = TOKENS) -> float:
    row = features(shape, tokens)
    return sum(slope * row[FEATURES.index(name)] for name, slope in TRUTH_MS.items())


def true_bytes(shape: ModelShape) -> int:
    return sum(spec.size_bytes for spec in weight_specs(shape).values())


def as_stored(shape: ModelShape, engine: str = "onnxruntime") -> ModelShape:
    """The shape at the widths at which an engine stores its weights."""
    layers = [layer.with_bits(*(stored_bits(engine, bits) for bits in layer.bits)) for layer in shape.layers]
    return replace(shape, layers=tuple(layers))


def sample(shape: ModelShape, factor: float = 1.0, tokens: int = TOKENS) -> Sample:
    time_ms, weights = factor * true_ms(shape, tokens), true_bytes(shape)
    return Sample(
        shape=shape,
        tokens=tokens,
        latency_p50_ms=time_ms,
        latency_p95_ms=TAIL * time_ms,
        peak_memory_bytes=BASE_BYTES + ENGINE_BYTES + weights,
        base_memory_bytes=BASE_BYTES,
        size_bytes=weights + 2000 + 2500 * len(shape.layers),
    )


def samples(count: int = 24, *, seed: int = 0, noise: float = 0.0) -> list[Sample]:
    """Samples around ``TEACHER`` whose times have log-normal noise of that relative size."""
    factors = np.exp(noise * np.random.default_rng(seed).standard_normal(count))
    return [
        sample(shape, float(factor)) for shape, factor in zip(sample_shapes(TEACHER, count, seed), factors, strict=True)
    ]


def fitted(some: list[Sample] | None = None) -> FittedPredictor:
    return fit(
        samples() if some is None else some,
        device="my-board",
        engine="onnxruntime",
        threads=2,
        provenance={"date": "2025-01-31", "engine_version": "1.23.2"},
    )


def fresh_shapes(count: int = 40) -> tuple[ModelShape, ...]:
    """Shapes that no sample has."""
    seen = {known.shape for known in samples()}
    return tuple(shape for shape in sample_shapes(TEACHER, count + 8, 12345) if shape not in seen)
