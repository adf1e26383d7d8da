"""Estimate costs from a device's data sheet, for devices that nobody has measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autocompress.cost import Cost, Estimate
from autocompress.engines import stored_bits
from autocompress.errors import UnsupportedError
from autocompress.predictors.cost_table import CostTable
from autocompress.predictors.features import FEATURES, features
from autocompress.shape import BITS, EMBEDDING_BITS, Bits, ModelShape

LABEL = "estimated, not calibrated"

LATENCY_FACTORS = (0.5, 3.0)
"""Interval of a latency, as multiples of the estimate. Wider above: data sheets know no throttling, no neighbours
and no missing kernels, and these only make things slower."""
MEMORY_FACTORS = (0.7, 1.5)
SIZE_FACTORS = (0.98, 1.02)
TAIL = 1.15
"""95th percentile over median on a quiet device."""

KERNELS_PER_LAYER: dict[Bits, int] = {32: 16, 16: 16, 8: 36, 4: 16, 3: 16, 2: 16}
"""Kernel launches of one layer by bits: at 8 bits each of four linear maps quantizes, multiplies and scales."""
FEWER_KERNELS = {"static": 16, "smoothed": 20, "token": 16}
"""The same at 8 bits where ranges are fixed, or a token's own: products are scaled and get their bias at once."""
CYCLES_PER_ELEMENT = {
    "channel_elements": 6.0,
    "attention_elements": 6.0,
    "ffn_elements": 8.0,
    "softmax_elements": 4.0,
    "received_elements": 1.0,
    "taken_elements": 2.0,
}
"""Cycles that all elementwise kernels of a layer (bias, activation, residual, norm, split, transpose, softmax,
selection) together take for each of these elements, from caches, with eight f32 lanes."""
EIGHT_LANES = 32
"""f32 FLOP a cycle of a core with eight lanes and two multiply-adds."""


@dataclass(frozen=True)
class Peak:
    """What the data sheet says of a device's processor.

    Attributes:
        cores: Cores that the engine may use.
        ghz: Sustained clock.
        f32_flops_per_cycle: Of one core, a multiply-add counted as two (NEON 2 x 128 bit: 16; AVX2 2 x FMA: 32).
        int8_ops_per_cycle: Of one core, counted alike (without dot-product instructions about the f32 number).
        bandwidth_gb_s: Memory bandwidth of all cores together.
    """

    cores: int
    ghz: float
    f32_flops_per_cycle: float
    int8_ops_per_cycle: float
    bandwidth_gb_s: float


@dataclass(frozen=True)
class Efficiency:
    """What an engine usually reaches of a processor's peak on encoder-sized kernels.

    Attributes:
        f32: Share of the f32 peak in matrix products, with weights of 16 bits too.
        int8: Share of the int8 peak in matrix products with 8-bit weights.
        bandwidth: Share of the memory bandwidth.
        kernel_us: Time to start one kernel, in microseconds at 1 GHz.
        int4: Share of the int8 peak in matrix products with 4-bit weights, 8-bit ones in groups and all in larger ones.
        int3: Share of the int8 peak in matrix products with 3-bit weights.
        int2: Share of the int8 peak in matrix products with 2-bit weights.
        process_bytes: Resident memory of a process with the engine but no model.
        bf16_growth: Memory of 16-bit linear weights over their stored bytes: 2 where loading casts them to f32.
        embedding_copies: Embedding tables in memory at the peak: two while a file is read, fewer if it is mapped.
    """

    f32: float
    int8: float
    int4: float
    int3: float
    int2: float
    bandwidth: float
    kernel_us: float
    process_bytes: float
    bf16_growth: float
    embedding_copies: float


EFFICIENCY: dict[str, Efficiency] = {
    "onnxruntime": Efficiency(
        f32=0.7,
        int8=0.6,
        int4=0.2,
        int3=0.2,
        int2=0.1,
        bandwidth=0.6,
        kernel_us=4.0,
        process_bytes=70e6,
        bf16_growth=2.0,
        embedding_copies=2.0,
    ),
    "tvm": Efficiency(
        f32=0.5,
        int8=0.4,
        int4=0.3,
        int3=0.3,
        int2=0.3,
        bandwidth=0.6,
        kernel_us=2.0,
        process_bytes=60e6,
        bf16_growth=1.0,
        embedding_copies=0.8,
    ),
}
"""Engine -> typical shares; the intervals are wide because these vary between processors."""


@dataclass(frozen=True)
class Roofline:
    """The slower of arithmetic and memory traffic (Williams, Waterman, Patterson 2009), plus starting the kernels.

    Attributes:
        device: Name of the device profile.
        engine: Key of ``EFFICIENCY``.
        threads: Threads of the engine; more than the cores bring nothing.
        peak: The processor.
        power_w: What the device takes under load, in watts, where its profile states it.
    """

    device: str
    engine: str
    threads: int
    peak: Peak
    power_w: float | None = None

    def __post_init__(self) -> None:
        if self.engine not in EFFICIENCY:
            raise UnsupportedError(
                f"Nothing is known about how fast the engine {self.engine!r} is.",
                right=f"Engines are {', '.join(EFFICIENCY)}.",
                next_step="Set device.engine to one of them.",
            )

    def predict(self, shape: ModelShape, tokens: int) -> Cost:
        """Return the estimated cost of ``shape`` on one sequence of ``tokens`` tokens; ``calibrated`` is false."""
        row = dict(zip(FEATURES, features(shape, tokens).tolist(), strict=True))
        latency_ms = self._latency_s(shape, row) * 1e3
        latency = _between(latency_ms, LATENCY_FACTORS)
        return Cost(
            latency_p50_ms=latency,
            latency_p95_ms=_between(latency_ms * TAIL, LATENCY_FACTORS),
            peak_memory_bytes=_between(self._memory_bytes(row), MEMORY_FACTORS),
            size_bytes=_between(self._size_bytes(row), SIZE_FACTORS),
            calibrated=False,
            source=f"{self.device}, {self.engine}, roofline: {LABEL}",
            energy_mj=latency.scaled(self.power_w),
        )

    def predict_many(self, shapes: Iterable[ModelShape], tokens: int) -> CostTable:
        """See ``Predictor.predict_many``."""
        return CostTable.of(self.predict(shape, tokens) for shape in shapes)

    def _latency_s(self, shape: ModelShape, row: Mapping[str, float]) -> float:
        peak, engine = self.peak, EFFICIENCY[self.engine]
        hz = min(self.threads, peak.cores) * peak.ghz * 1e9
        f32_macs = row["gemm_macs_32"] + row["gemm_macs_16"] + row["attention_macs"]
        shares: dict[Bits, float] = {8: engine.int8, 4: engine.int4, 3: engine.int3, 2: engine.int2}
        int8_macs = sum(row[f"gemm_macs_{bits}"] / share for bits, share in shares.items())
        int8_macs += (row["token_macs"] + row["coarse_macs"]) / engine.int4
        arithmetic_s = 2 * f32_macs / (hz * peak.f32_flops_per_cycle * engine.f32) + 2 * int8_macs / (
            hz * peak.int8_ops_per_cycle
        )
        streaming_s = self._linear_bytes(row) / (peak.bandwidth_gb_s * 1e9 * engine.bandwidth)
        element_cycles = sum(cycles * row[name] for name, cycles in CYCLES_PER_ELEMENT.items())
        elementwise_s = element_cycles * EIGHT_LANES / peak.f32_flops_per_cycle / hz
        kernels = sum(
            FEWER_KERNELS.get(layer.activations_at(bits), KERNELS_PER_LAYER[bits]) / 4
            for layer in shape.layers
            for bits in layer.bits
        )
        kernels += (KERNELS_PER_LAYER[shape.head_bits] - KERNELS_PER_LAYER[32]) / 4 * len(shape.head_maps)
        starting_s = kernels * engine.kernel_us * 1e-6 / peak.ghz
        return max(arithmetic_s, streaming_s) + elementwise_s + starting_s

    def _linear_bytes(self, row: Mapping[str, float]) -> float:
        growth: dict[Bits, float] = {16: EFFICIENCY[self.engine].bf16_growth}
        return sum(growth.get(bits, self._stored_growth(bits)) * row[f"linear_bytes_{bits}"] for bits in BITS)

    def _size_bytes(self, row: Mapping[str, float]) -> float:
        wider = sum((self._stored_growth(bits) - 1) * row[f"linear_bytes_{bits}"] for bits in BITS)
        return row["weight_bytes"] + wider + row["position_bytes"] + 2.7e3 * row["layers"]

    def _stored_growth(self, bits: Bits) -> float:
        return stored_bits(self.engine, bits) / bits

    def _memory_bytes(self, row: Mapping[str, float]) -> float:
        engine = EFFICIENCY[self.engine]
        embedding = sum(row[f"embedding_bytes_{bits}"] for bits in EMBEDDING_BITS)
        working = 1.1 * self._linear_bytes(row) + 2 * row["activation_bytes"]
        return engine.process_bytes + engine.embedding_copies * embedding + working


def _between(value: float, factors: tuple[float, float]) -> Estimate:
    return Estimate(value, value * factors[0], value * factors[1])
