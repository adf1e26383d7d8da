import numpy as np
import pytest

from autocompress.compiler.dots import (
    bytes_in_groups,
    nibble_maddubs,
    nibble_sdot,
    nibble_vnni,
    nibble_widening,
    pmaddwd,
    widening,
)
from autocompress.compiler.machine import Tile
from autocompress.compiler.packing import (
    FIELDS,
    grouped_panels,
    lines_of,
    offset_of,
    panels,
    row_panels,
    zero_panels,
)
from autocompress.compiler.schedules.gemm_grouped import gemm_grouped, quantize_groups
from autocompress.compiler.target import Target, machine_of
from autocompress.shape import WEIGHT_GROUPS, WeightGrid
from tests.compiler import numpy_graph
from tests.compiler.numpy_graph import ACTIVATIONS, grouped
from tests.compiler.running import run

HOST = machine_of(Target.host().llvm())
USUAL = WeightGrid()


def runnable_dots():
    """Every way to multiply that this machine can execute."""
    dots = [nibble_widening(widening(4)), nibble_widening(widening(16)), HOST.nibbles]
    if HOST.dot.name in ("vnni", "pmaddwd"):
        dots += [nibble_widening(pmaddwd(lanes)) for lanes in (4, 8, 16) if lanes <= HOST.lanes]
        dots += [nibble_maddubs(lanes) for lanes in (8, 16) if lanes <= HOST.lanes]
    if HOST.nibbles == nibble_vnni(16):
        dots.append(nibble_vnni(8))
    return list(dict.fromkeys(dots))


GRIDS = [WeightGrid(group, zeros) for group in WEIGHT_GROUPS for zeros in (False, True)]


def padded(values, width, dtype):
    filled = np.zeros((len(values), width), dtype)
    filled[:, : values.shape[1]] = values
    return filled


def product(
    dot, q, weight, bits=4, grid=USUAL, *, scale=None, w_scale=None, zeros=None, bias=None, activation=None, vectors=1
):
    """Run the kernel on levels ``q``; scales are 1, zero points and the bias 0 unless given."""
    (rows, depth), columns = q.shape, weight.shape[1]
    count = grid.count(depth)
    scale = np.ones((rows, count), np.float32) if scale is None else scale
    w_scale = np.ones((count, columns), np.float32) if w_scale is None else w_scale
    bias = np.zeros(columns, np.float32) if bias is None else bias
    tile = Tile(rows=6, panel=vectors * dot.lanes, lanes=dot.lanes)
    size = {"rows": rows, "depth": depth, "columns": columns}
    kernel = gemm_grouped("kernel", **size, bits=bits, activation=activation, tile=tile, dot=dot, grid=grid)
    levels = padded(q, count * grid.group, dot.stored)
    offset = 1 if grid.zero_points else 2 ** (bits - 1)
    inputs = [
        levels,
        scale,
        -offset * levels.reshape(rows, count, grid.group).astype(np.int32).sum(-1, dtype=np.int32),
        grouped_panels(weight, tile.panel, dot, bits, grid),
        panels(w_scale, tile.panel),
        *([zero_panels(zeros, tile.panel, bits)] if grid.zero_points else []),
        row_panels(bias, tile.panel),
    ]
    return run(kernel, inputs, [((rows, columns), "float32")])[0]


def levels_of(rng, bits, dimensions):
    return rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), dimensions, dtype=np.int8)


@pytest.mark.parametrize("dot", runnable_dots(), ids=lambda dot: f"{dot.name}{dot.lanes}")
@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 3, 5), (7, 37, 41), (13, 64, 33), (6, 70, 64)])
def test_integer_sums_are_exact(dot, bits, rows, depth, columns):
    rng = np.random.default_rng(rows)
    q, weight = rng.integers(-127, 128, (rows, depth)), levels_of(rng, bits, (depth, columns))
    # Below 2^24 every integer is a float32, so equality is exact.
    assert depth * 127 * 128 < 2**24
    dot = bytes_in_groups(dot) if bits == 8 else dot
    np.testing.assert_array_equal(product(dot, q, weight, bits), q @ weight.astype(np.int64))


@pytest.mark.parametrize("dot", runnable_dots(), ids=lambda dot: f"{dot.name}{dot.lanes}")
@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("grid", [WeightGrid(32, zero_points=True), WeightGrid(64), GRIDS[-1]], ids=str)
def test_integer_sums_are_exact_in_groups_of_any_size_less_their_zero_points(dot, bits, grid):
    rng, (rows, depth, columns) = np.random.default_rng(grid.group), (7, 150, 37)
    q, weight = rng.integers(-127, 128, (rows, depth)), levels_of(rng, bits, (depth, columns))
    grid = grid.at(bits, "token")
    zeros = levels_of(rng, bits, (grid.count(depth), columns)) if grid.zero_points else np.zeros((5, columns), np.int8)
    dot = bytes_in_groups(dot) if bits == 8 else dot
    expected = q @ (weight.astype(np.int64) - np.repeat(zeros, grid.group, 0)[:depth])
    np.testing.assert_array_equal(product(dot, q, weight, bits, grid, zeros=zeros), expected)


@pytest.mark.parametrize("dot", runnable_dots(), ids=lambda dot: f"{dot.name}{dot.lanes}")
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("grid", [USUAL, WeightGrid(128)], ids=str)
def test_the_largest_values_do_not_saturate(dot, bits, grid):
    levels, weights = np.array([[-127], [127]]), np.array([[-(2 ** (bits - 1)), 2 ** (bits - 1) - 1]])
    dot = bytes_in_groups(dot) if bits == 8 else dot
    sums = product(dot, levels.repeat(128, 1), weights.astype(np.int8).repeat(128, 0), bits, grid)
    np.testing.assert_array_equal(sums, levels * weights * 128)


def test_bytes_that_are_multiplied_as_signed_ones_are_stored_as_they_are():
    weight = np.arange(-128, 128, dtype=np.int8).reshape(64, 4)
    signed, unsigned = (grouped_panels(weight, 4, dot, 8, USUAL) for dot in (nibble_sdot(), nibble_vnni(4)))
    np.testing.assert_array_equal(signed.view(np.int8) + np.int16(128), unsigned)
    assert signed.view(np.int8)[0, 0].tolist() == weight[:4].T.reshape(-1).tolist()
    assert [offset_of(8, dot) for dot in (nibble_sdot(), nibble_vnni(4))] == [0, 128]


@pytest.mark.parametrize("vectors", [1, 3])
@pytest.mark.parametrize("activation", [None, "gelu", "relu", "tanh"])
@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 5, 3), (7, 37, 41), (17, 70, 33), (11, 8, 64)])
def test_groups_are_scaled_and_have_bias_and_activation_at_every_odd_size(rows, depth, columns, activation, vectors):
    rng = np.random.default_rng(depth)
    q, weight = rng.integers(-127, 128, (rows, depth)), rng.integers(-8, 8, (depth, columns), dtype=np.int8)
    count = -(-depth // 32)
    scale = rng.uniform(0.001, 0.02, (rows, count)).astype(np.float32)
    w_scale = rng.uniform(-0.1, 0.1, (count, columns)).astype(np.float32)
    bias = rng.standard_normal(columns, np.float32)
    given = {"scale": scale, "w_scale": w_scale, "bias": bias}
    y = product(HOST.nibbles, q, weight, **given, activation=activation, vectors=vectors)
    x, w = q * grouped(scale, axis=1, width=depth), weight * grouped(w_scale, axis=0, width=depth)
    expected = x @ w + bias if activation is None else ACTIVATIONS[activation](x @ w + bias)
    # Each group is one f32 product; 2e-6 is the error of the activation.
    size = (np.abs(x) @ np.abs(w) + np.abs(bias)).max()
    np.testing.assert_allclose(y, expected, atol=(count + 3) * 2**-23 * size + (0 if activation is None else 2e-6))


def quantized(x, dot=HOST.nibbles, lanes=HOST.lanes, bits=4, grid=USUAL):
    (rows, width), count = x.shape, grid.count(x.shape[1])
    kernel = quantize_groups("kernel", rows=rows, width=width, bits=bits, dot=dot, lanes=lanes, grid=grid)
    outputs = [((rows, count * grid.group), dot.stored), ((rows, count), "float32"), ((rows, count), "int32")]
    return run(kernel, [x], outputs)


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize(("width", "bits"), [(3, 4), (32, 2), (39, 4), (64, 3), (96, 2), (127, 4)])
def test_activations_are_quantized_bit_for_bit_a_row_and_group(width, bits, lanes):
    x = np.random.default_rng(width).standard_normal((5, width), np.float32)
    q, scale, excess = quantized(x, nibble_widening(widening(lanes)), lanes, bits)
    expected_q, expected_scale = numpy_graph.quantize_groups(x)
    np.testing.assert_array_equal(q, padded(expected_q, q.shape[1], q.dtype))
    np.testing.assert_array_equal(scale, expected_scale)
    np.testing.assert_array_equal(excess, -(2 ** (bits - 1)) * q.reshape(5, -1, 32).astype(int).sum(-1))


@pytest.mark.parametrize("lanes", [4, 16])
@pytest.mark.parametrize("bits", [8, 3])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("width", [39, 128, 300])
def test_groups_of_activations_are_as_large_as_those_of_weights(lanes, bits, grid, width):
    x = np.random.default_rng(width).standard_normal((5, width), np.float32)
    grid = grid.at(bits, "token")
    q, scale, excess = quantized(x, nibble_widening(widening(lanes)), lanes, bits, grid)
    expected_q, expected_scale = numpy_graph.quantize_groups(x, grid.group)
    np.testing.assert_array_equal(q, padded(expected_q, q.shape[1], q.dtype))
    np.testing.assert_array_equal(scale, expected_scale)
    offset = 1 if grid.zero_points else 2 ** (bits - 1)
    np.testing.assert_array_equal(excess, -offset * q.reshape(5, -1, grid.group).astype(int).sum(-1))


def test_halves_round_to_even():
    x = np.zeros((1, 32), np.float32)
    x[0, :9], x[0, -1] = np.arange(-4, 5) / 2, 127  # a step of exactly 1
    q, scale, _ = quantized(x)
    assert scale == 1
    np.testing.assert_array_equal(q[0, :9], [-2, -2, -1, 0, 0, 0, 1, 2, 2])


def test_a_group_of_zeros_stays_zero():
    x = np.zeros((2, 64), np.float32)
    x[1, 40] = -3.0
    q, scale, excess = quantized(x)
    assert not q[0].any()
    assert (scale[0].tolist(), scale[1].tolist()) == ([0, 0], [0, np.float32(3) / np.float32(127)])
    assert (int(q[1, 40]), excess.tolist()) == (-127, [[0, 0], [0, 8 * 127]])


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_weights_take_as_many_bits_as_they_are_said_to(bits):
    weight = np.zeros((128, 96), np.int8)
    for dot in runnable_dots():
        for grid in GRIDS:
            assert grouped_panels(weight, dot.lanes, dot, bits, grid).nbytes == weight.size * bits / 8


@pytest.mark.parametrize("bits", FIELDS)
def test_every_bit_of_the_shared_bytes_is_a_bit_of_one_weight(bits):
    lines = [0] * lines_of(len(FIELDS[bits]), bits)
    for fields in FIELDS[bits]:
        assert sum(field.mask for field in fields) == 2**bits - 1
        for field in fields:
            assert not lines[field.line] & field.mask << field.shift
            lines[field.line] |= field.mask << field.shift
    assert set(lines) == {0xFF}
