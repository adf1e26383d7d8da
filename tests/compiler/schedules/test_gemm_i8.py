from dataclasses import replace

import numpy as np
import pytest

from autocompress.compiler.dots import pmaddwd, vnni, widening
from autocompress.compiler.packing import column_sums, dot_panels, row_panels
from autocompress.compiler.schedules.gemm_i8 import gemm_i8, quantize, quantize_static
from autocompress.compiler.target import Target, machine_of
from tests.compiler import numpy_graph
from tests.compiler.running import run

HOST = machine_of(Target.host().llvm())


def runnable_dots():
    """Every way to multiply that this machine can execute."""
    dots = [widening(4), widening(16), HOST.dot]
    if HOST.dot.name in ("vnni", "pmaddwd"):
        dots += [pmaddwd(lanes) for lanes in (4, 8, 16) if lanes <= HOST.lanes]
    if HOST.dot == vnni(16):
        dots.append(vnni(8))
    return list(dict.fromkeys(dots))


def product(dot, q, zero, weight):
    rows, depth = q.shape
    columns = weight.shape[1]
    tile = replace(HOST, lanes=dot.lanes, registers=32, dot=dot).tile(rows, columns)
    kernel = gemm_i8("kernel", rows=rows, depth=depth, columns=columns, activation=None, tile=tile, dot=dot)
    padded = np.zeros((rows, -(-depth // dot.group) * dot.group), dot.stored)
    padded[:, :depth] = q - dot.shift
    inputs = [
        padded,
        np.ones(1, np.float32),
        np.array([zero], np.int32),
        dot_panels(weight, tile.panel, dot.group),
        row_panels(np.ones(columns, np.float32), tile.panel),
        column_sums(weight, tile.panel),
        row_panels(np.zeros(columns, np.float32), tile.panel),
    ]
    return run(kernel, inputs, [((rows, columns), "float32")])[0]


@pytest.mark.parametrize("dot", runnable_dots(), ids=lambda dot: f"{dot.name}{dot.lanes}")
@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 3, 5), (2, 37, 150), (7, 37, 41), (13, 64, 64)])
def test_the_integer_product_is_exact(dot, rows, depth, columns):
    rng = np.random.default_rng(rows)
    q = rng.integers(0, 256, (rows, depth))
    weight = rng.integers(-128, 128, (depth, columns), dtype=np.int8)
    # Below 2^24 every integer is a float32, so equality is exact.
    assert depth * 255 * 128 < 2**24
    np.testing.assert_array_equal(product(dot, q, 113, weight), (q - 113) @ weight.astype(np.int64))


@pytest.mark.parametrize("dot", runnable_dots(), ids=lambda dot: f"{dot.name}{dot.lanes}")
def test_the_largest_values_do_not_saturate(dot):
    q, weight = np.full((2, 32), 255), np.full((32, 3), -128, np.int8)
    np.testing.assert_array_equal(product(dot, q, 0, weight), np.full((2, 3), -128 * 255 * 32))


def quantized(x, dot):
    rows, width = x.shape
    kernel = quantize("kernel", rows=rows, width=width, dot=dot, lanes=HOST.lanes)
    padded = -(-width // dot.group) * dot.group
    outputs = [((rows, padded), dot.stored), ((1,), "float32"), ((1,), "int32")]
    q, scale, zero = run(kernel, [x], outputs)
    return q, scale[0], zero[0]


@pytest.mark.parametrize("low", [-1.0, -0.2, 0.5])
def test_activations_are_quantized_bit_for_bit_as_onnx_says(low):
    x = np.random.default_rng(3).uniform(low, 1.0, (5, 39)).astype(np.float32)
    q, scale, zero = quantized(x, HOST.dot)
    expected_q, expected_scale, expected_zero = numpy_graph.quantize(x)
    np.testing.assert_array_equal(q[:, :39].astype(np.int32) + HOST.dot.shift, expected_q)
    assert not q[:, 39:].any()
    assert (scale, zero) == (expected_scale, expected_zero)


@pytest.mark.parametrize("dot", runnable_dots(), ids=lambda dot: f"{dot.name}{dot.lanes}")
@pytest.mark.parametrize("zero", [0, 113, 255])
@pytest.mark.parametrize("smoothed", [False, True])
def test_activations_over_a_fixed_range_are_quantized_bit_for_bit_and_clipped(smoothed, zero, dot):
    rng = np.random.default_rng(zero)
    x = rng.standard_normal((3, 39)).astype(np.float32) * 2
    x[0, :4], x[1, 0] = [9e30, -9e30, 0, np.float32(2.0**31)], 5.0
    factors = rng.uniform(20, 40, 39).astype(np.float32) if smoothed else np.array([0.03], np.float32)
    padded = -(-39 // dot.group) * dot.group
    kernel = quantize_static("kernel", rows=3, width=39, smoothed=smoothed, dot=dot, lanes=HOST.lanes)
    (q,) = run(kernel, [x, factors, np.array([zero], np.int32)], [((3, padded), dot.stored)])
    expected = numpy_graph.quantize_static(x, factors, zero, factors if smoothed else None)
    np.testing.assert_array_equal(q[:, :39].astype(np.int32) + dot.shift, expected)
    assert expected.min() == 0 and expected.max() == 255
    assert not q[:, 39:].any()


def test_halves_round_to_even():
    x = np.arange(-8, 9, dtype=np.float32).reshape(1, -1) / 2
    x[0, 0], x[0, -1] = -100, 155  # a step of exactly 1
    q, scale, zero = quantized(x, widening(4))
    assert (scale, zero) == (1, 100)
    np.testing.assert_array_equal(q[0, 1:-1].astype(int) - 100, [-4, -3, -2, -2, -2, -1, 0, 0, 0, 1, 2, 2, 2, 3, 4])


def test_an_activation_of_zeros_has_scale_one():
    q, scale, zero = quantized(np.zeros((2, 5), np.float32), widening(4))
    assert (scale, zero) == (1, 0)
    assert not q.any()
