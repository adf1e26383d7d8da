"""The benchmark of matrix products: its peaks compute what they count, and what computes something else is refused."""

from dataclasses import replace

import numpy as np
import pytest

from autocompress.compiler.target import Target, machine_of
from benchmarks import contenders, peaks
from benchmarks.contenders import Product
from benchmarks.kernels import check, shares

HOST = machine_of(Target.host().llvm())
SMALL = Product(rows=3, columns=37, depth=41)


@pytest.mark.parametrize(
    "entry", ["f32", "f16", "int8", "int4", "int3", "int2", "torch f32", "onnxruntime f32", "onnxruntime int8"]
)
def test_every_contender_computes_the_product(entry):
    make = {
        "f32": lambda: contenders.ours_f32(SMALL, HOST),
        "int8": lambda: contenders.ours_i8(SMALL, HOST),
        "f16": lambda: contenders.ours_f16(SMALL, HOST),
        "int4": lambda: contenders.ours_grouped(SMALL, HOST, 4),
        "int3": lambda: contenders.ours_grouped(SMALL, HOST, 3),
        "int2": lambda: contenders.ours_grouped(SMALL, HOST, 2),
        "torch f32": lambda: contenders.torch_f32(SMALL),
        "onnxruntime f32": lambda: contenders.onnxruntime_f32(SMALL),
        "onnxruntime int8": lambda: contenders.onnxruntime_i8(SMALL),
    }[entry]
    check(SMALL, entry, make())


def test_another_result_is_not_timed():
    right = contenders.ours_f32(SMALL, HOST)
    with pytest.raises(RuntimeError, match="off the product"):
        check(SMALL, "f32", replace(right, result=lambda: right.result() + 1))


def test_the_f32_peak_runs_every_step_on_every_sum():
    peak = peaks.multiply_f32(HOST)
    peak.time_s(1)
    sums = peak.result()
    # s <- 0.9 s + 0.1 ends at 1 wherever it starts.
    np.testing.assert_allclose(sums, np.ones_like(sums), rtol=1e-5)
    assert peak.operations == 2 * peaks.STEPS * sums.size


def test_the_read_adds_up_every_byte_it_counts():
    reading = peaks.read(HOST, 64 * 1024)
    reading.time_s(1)
    assert reading.result().sum() * 4 == reading.operations == 64 * 1024


def test_a_share_is_the_median_of_each_rounds_share():
    speeds = {"peak f32": [100.0, 50.0, 100.0], "f32": [90.0, 45.0, 80.0], "int4": [50.0, 25.0, 50.0]}
    speeds |= {"peak int8": [400.0] * 3, "int8": [200.0] * 3}
    assert shares(speeds) == {"f32": 0.9, "int8": 0.5, "int4": 0.125}


def test_reading_bounds_a_product_by_two_operations_a_weight():
    speeds = {"peak f32": [100.0], "peak int8": [400.0], "f32": [40.0], "int8": [100.0], "int4": [20.0]}
    speeds |= {"read f32": [100.0], "read int8": [100.0], "read int4": [100.0]}
    found = shares(speeds)
    assert (found["f32_of_read"], found["int8_of_read"], found["int4_of_read"]) == (0.8, 0.5, 0.05)
