"""How near are matrix products to what one core can do? ``python -m benchmarks.kernels [--quick]``.

Our products, those of torch and ONNX Runtime, and the peaks that they are held against are timed in turn, in one
process on one thread. Ours add a bias, and at 8 bits scale their sums back to f32; activations come quantized.
A share is the median over rounds of the speed over the peak of the same round.
"""

from __future__ import annotations

import os

if __name__ == "__main__":
    # Libraries read them when they start.
    os.environ["OMP_NUM_THREADS"] = os.environ["TVM_NUM_THREADS"] = "1"

import argparse
from collections.abc import Mapping
from statistics import median
from time import perf_counter

import numpy as np

from autocompress.compiler.graph import round_bf16
from autocompress.compiler.machine import Machine
from autocompress.compiler.target import Target, machine_of
from autocompress.profiling.drift import Reference, waiting_clock
from autocompress.profiling.episodes import WAITED
from benchmarks import contenders, peaks
from benchmarks.contenders import Contender, Product
from benchmarks.record import finish, print_table

PRODUCTS = (Product(64, 1536, 384), Product(64, 384, 1536), Product(128, 3072, 768), Product(1, 384, 384))
PEAKS = {"f32": "peak f32", "f16": "peak f32"} | dict.fromkeys(("int8", "int4", "int3", "int2"), "peak int8")
"""What a product is held against. Weights of 4 bits and fewer are multiplied as integers too; 16-bit products exceed
the f32 peak where the processor has them."""
WEIGHT_BYTES = {"f32": 4.0, "f16": 2.0, "int8": 1.0, "int4": 0.5, "int3": 0.375, "int2": 0.25}
ATTEMPTS = 5
"""Tries at a sample that did not wait for a processor."""


def entries(product: Product, machine: Machine) -> dict[str, Contender]:
    """Return what is timed in turn; with one row also the reading of as many bytes as the weights have."""
    found = {
        "peak f32": peaks.multiply_f32(machine),
        "peak int8": peaks.multiply_i8(machine),
        "f32": contenders.ours_f32(product, machine),
        "f16": contenders.ours_f16(product, machine),
        "int8": contenders.ours_i8(product, machine),
        "int4": contenders.ours_grouped(product, machine, 4),
        "int3": contenders.ours_grouped(product, machine, 3),
        "int2": contenders.ours_grouped(product, machine, 2),
        "torch f32": contenders.torch_f32(product),
        "onnxruntime f32": contenders.onnxruntime_f32(product),
        "onnxruntime int8": contenders.onnxruntime_i8(product),
    }
    if product.rows == 1:
        weights = product.depth * product.columns
        found |= {f"read {name}": peaks.read(machine, int(size * weights)) for name, size in WEIGHT_BYTES.items()}
    return found


def check(product: Product, entry: str, contender: Contender) -> None:
    """Refuse to time what computes something else.

    Raises:
        RuntimeError: The result is not the product.
    """
    if entry.startswith(("peak", "read")):
        return
    contender.time_s(1)
    x, weight = product.integers(8) if "int8" in entry else product.floats()
    if entry == "f16":
        x, weight = round_bf16(x), round_bf16(weight)
    if entry in ("int4", "int3", "int2"):
        x, weight = product.integers(8)[0].astype(np.int32) - 128, product.integers(int(entry[-1]))[1]
    expected = x.astype(np.float64) @ weight.astype(np.float64)
    # Sums of 8-bit products above 2^24 are rounded once, on their way to f32.
    far = np.abs(contender.result() - expected).max() / np.abs(expected).max()
    if not far <= (2**-24 if "int8" in entry else 1e-5):
        raise RuntimeError(f"{entry} of {product} is {far:.1e} off the product in float64.")


def measure(found: Mapping[str, Contender], rounds: int, reference: Reference) -> dict[str, list[float]]:
    """Return of each entry its operations (or bytes) a nanosecond, one number a round."""
    sizes = {name: contender.sized() for name, contender in found.items()}
    speeds: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        reference()
        for name, contender in found.items():
            speeds[name].append(contender.operations / _undisturbed_s(contender, sizes[name]) / 1e9)
    return speeds


def _undisturbed_s(contender: Contender, number: int, attempts: int = ATTEMPTS) -> float:
    """Return the seconds of one run out of ``number``, again where another process held the processor meanwhile."""
    waited = waiting_clock()
    before_s, start_s = waited(), perf_counter()
    run_s = contender.time_s(number)
    disturbed = waited() - before_s > WAITED / 5 * (perf_counter() - start_s)
    return _undisturbed_s(contender, number, attempts - 1) if disturbed and attempts > 1 else run_s


def shares(speeds: Mapping[str, list[float]]) -> dict[str, float]:
    """Return each width's share of its peak, and for one row of the time that reading the weights alone takes."""

    def share(name: str, most: str, operations_a_byte: float = 1.0) -> float:
        pairs = zip(speeds[name], speeds[most], strict=True)
        return round(median(speed / (operations_a_byte * peak) for speed, peak in pairs), 3)

    found = {name: share(name, peak) for name, peak in PEAKS.items() if name in speeds}
    reads = [name for name in PEAKS if f"read {name}" in speeds]
    # One multiplication and one addition of each weight.
    return found | {f"{name}_of_read": share(name, f"read {name}", 2 / WEIGHT_BYTES[name]) for name in reads}


def main() -> None:
    """Check, measure in turn, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 rounds instead of 60")
    quick = parser.parse_args().quick
    machine, figures, details = machine_of(Target.host().llvm()), {}, {}
    for product in PRODUCTS:
        reference = Reference()
        found = entries(product, machine)
        for name, contender in found.items():
            check(product, name, contender)
        speeds = measure(found, 10 if quick else 60, reference)
        name = f"{product.rows}x{product.columns}x{product.depth}"
        figures[name] = shares(speeds) | {"reference_ms": round(reference.median_ms, 4)}
        details[name] = speeds
        rows = [[entry, f"{median(speeds[entry]):.1f}", _percent(figures[name].get(entry))] for entry in speeds]
        print_table([name, "G/s", "of peak"], rows)
    finish("kernels", {"dot": machine.dot.name, **figures}, quick=quick, details=details)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


if __name__ == "__main__":
    main()
