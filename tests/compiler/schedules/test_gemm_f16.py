import numpy as np
import pytest
import tvm

from autocompress.compiler.dots import bfdot, dpbf16ps, fmla, half_of, shifted, shifted_pairs
from autocompress.compiler.graph import round_bf16
from autocompress.compiler.intrinsics import half
from autocompress.compiler.machine import Tile
from autocompress.compiler.packing import half_panels, row_panels
from autocompress.compiler.relax_graph import kernel_options
from autocompress.compiler.schedules.gemm_f16 import gemm_f16, narrow
from autocompress.compiler.target import Target, machine_of
from autocompress.errors import UnsupportedError
from tests.compiler.numpy_graph import ACTIVATIONS
from tests.compiler.running import run

HOST = Target.host().llvm()
SIZES = [(1, 5, 3), (2, 37, 150), (7, 36, 41), (17, 71, 33), (11, 8, 64)]


def host_has(feature):
    return bool(tvm.target.codegen.target_has_features(feature, HOST))


def runnable_dots():
    """Every way to multiply that this machine can execute, f16 products perhaps in f32 registers."""
    triple = str(tvm.target.codegen.llvm_get_system_triple())
    ways = [fmla(), shifted(4), shifted(16), shifted_pairs(4), half_of(host_has, triple.split("-")[0], 4)]
    if triple.startswith("x86_64") and host_has("avx512bf16"):
        ways += [dpbf16ps(8), dpbf16ps(16)]
    return list(dict.fromkeys(ways))


each_dot = pytest.mark.parametrize("dot", runnable_dots(), ids=lambda dot: f"{dot.name}{dot.lanes}")


def narrowed(x, dot):
    return run(narrow("kernel", rows=x.shape[0], width=x.shape[1], dot=dot), [x], [(x.shape, dot.stored)])[0]


def stored(x, dot):
    """Return x as the kernel reads it, and the numbers that these values stand for."""
    if dot.stored == "float32":
        return x, x
    if dot.stored == "float16":
        return x.astype(np.float16), x.astype(np.float16).astype(np.float32)
    return (round_bf16(x).view(np.uint32) >> 16).astype(np.uint16), round_bf16(x)


def product(dot, x, weight, bias, activation=None, vectors=2):
    (rows, depth), columns = x.shape, weight.shape[1]
    tile = Tile(rows=4, panel=vectors * dot.lanes, lanes=dot.lanes)
    written = gemm_f16("kernel", rows=rows, depth=depth, columns=columns, activation=activation, tile=tile, dot=dot)
    inputs = [stored(x, dot)[0], half_panels(weight, tile.panel, dot), row_panels(bias, tile.panel)]
    return run(written, inputs, [((rows, columns), "float32")])[0]


def rounding(dot, x, weight, bias):
    """Return how far the sums may be from exact ones.

    Every product is rounded at most once by itself and once for each product of its sum that is added to it, by at most
    one unit in the last place whichever way an instruction rounds.
    """
    mass = np.abs(x).astype(np.float64) @ np.abs(weight) + np.abs(bias)
    growth = (1 + 2**-23) ** (x.shape[1] + 2) - 1
    if not dot.longest:
        return mass * growth
    # Products below the smallest normal f16 are off by half of 2^-24.
    return mass * (growth + (1 + 2**-11) ** (dot.longest + 2) - 1) + x.shape[1] * 2**-25


@each_dot
@pytest.mark.parametrize(("rows", "depth", "columns"), SIZES)
def test_the_product_is_that_of_the_stored_numbers_at_every_odd_size(dot, rows, depth, columns):
    rng = np.random.default_rng(depth)
    x, weight, bias = (rng.standard_normal(size, np.float32) for size in ((rows, depth), (depth, columns), columns))
    weight, values = round_bf16(weight), stored(x, dot)[1]
    far = np.abs(product(dot, x, weight, bias) - (values.astype(np.float64) @ weight + bias))
    assert (far <= rounding(dot, values, weight, bias)).all()


@each_dot
def test_small_integers_are_multiplied_exactly(dot):
    rng = np.random.default_rng(0)
    x, weight = (rng.integers(-8, 9, size).astype(np.float32) for size in ((5, 83), (83, 70)))
    # 16 products stay below 2^11, from where f16 leaves out integers.
    assert 16 * 8 * 8 < 2**11
    np.testing.assert_array_equal(product(dot, x, weight, np.ones(70, np.float32)), x @ weight + 1)


@each_dot
@pytest.mark.parametrize("vectors", [1, 4])
def test_a_panel_may_be_narrow_or_wide(dot, vectors):
    x, weight = np.ones((3, 9), np.float32), np.arange(9 * 50, dtype=np.float32).reshape(9, 50) % 128
    np.testing.assert_array_equal(product(dot, x, weight, np.zeros(50, np.float32), vectors=vectors), x @ weight)


@pytest.mark.parametrize("activation", ["gelu", "relu", "tanh"])
def test_the_activation_follows_the_bias(activation):
    rng = np.random.default_rng(1)
    x, weight, bias = (rng.standard_normal(size, np.float32) for size in ((5, 20), (20, 37), 37))
    weight = round_bf16(weight)
    expected = ACTIVATIONS[activation](x.astype(np.float64) @ weight + bias)
    # The slope of an activation is below 1.2; its own error is below 2e-6.
    limit = 1.2 * rounding(shifted(4), x, weight, bias) + 2e-6
    assert (np.abs(product(shifted(4), x, weight, bias, activation) - expected) <= limit).all()


@each_dot
def test_activations_are_rounded_to_nearest_and_halves_to_even(dot):
    rng = np.random.default_rng(2)
    x = (rng.standard_normal((3, 41)) * 10.0 ** rng.integers(-3, 4, (3, 41))).astype(np.float32)
    # Half-way between neighbours of both types: 8 and 11 bits of 1.x.
    x[0, :8] = [1 + odd * 2.0**-bits for bits in (8, 11) for odd in (1, 3, -1, 5)]
    np.testing.assert_array_equal(narrowed(x, dot), stored(x, dot)[0])


def test_what_is_too_large_becomes_infinite_and_nothing_becomes_a_number():
    x = np.array([[np.inf, -np.inf, np.nan, 3.4e38, 65519, 65520]], np.float32)
    half = narrowed(x, fmla())
    np.testing.assert_array_equal(half, np.array([[np.inf, -np.inf, np.nan, np.inf, 65504, np.inf]], np.float16))
    for dot in runnable_dots():
        if dot.stored == "uint16":
            wide = (narrowed(x, dot).astype(np.uint32) << 16).view(np.float32)
            np.testing.assert_array_equal(wide, [[np.inf, -np.inf, np.nan, np.inf, 65536, 65536]])


def test_rounding_to_bfloat16_keeps_8_bits():
    values = np.array([1, 1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8 + 2**-20), 0.0, 2.0**-140], np.float32)
    expected = [1, 1, 1 + 2**-6, -(1 + 2**-7), 0, 0]
    np.testing.assert_array_equal(round_bf16(values), np.array(expected, np.float32))
    np.testing.assert_array_equal(round_bf16(round_bf16(values)), round_bf16(values))


def test_weights_as_f16_are_exact_down_to_2_to_the_minus_17_and_then_fade():
    kept = [sign * (1 + at / 128) * 2.0**power for sign in (1, -1) for at in range(128) for power in range(-17, 16)]
    weight = np.array([*kept, 2.0**-24, 2.0**-26], np.float32).reshape(-1, 1)
    packed = half_panels(weight, 8, fmla())[0, :, 0]
    np.testing.assert_array_equal(packed[: len(kept)].astype(np.float32), weight[: len(kept), 0])
    np.testing.assert_array_equal(packed[len(kept) :], [2.0**-24, 0])


@pytest.mark.parametrize(
    ("value", "dot"), [(1 + 2**-8, bfdot()), (1 + 2**-8, fmla()), (65536.0, fmla()), (np.nan, shifted(4))]
)
def test_weights_that_cannot_be_kept_are_refused(value, dot):
    weight = np.full((3, 3), value, np.float32)
    with pytest.raises(UnsupportedError, match="bfloat16"):
        half_panels(weight, 8, dot)


def test_weights_beyond_f16_are_kept_as_round_bf16():
    weight = np.full((2, 1), 2.0**100, np.float32)
    packed = half_panels(weight, 4, bfdot())
    assert packed.shape == (1, 1, 8)
    np.testing.assert_array_equal((packed[0, 0, :2].astype(np.uint32) << 16).view(np.float32), weight[:, 0])


def test_kernels_that_bring_the_same_functions_share_a_library():
    lanes = machine_of(HOST).lanes
    dot = next((dot for dot in runnable_dots() if half.code(dot)), shifted(lanes))
    tile = Tile(rows=4, panel=dot.lanes, lanes=dot.lanes)
    kernels = {
        f"kernel_{depth}": gemm_f16(
            f"kernel_{depth}", rows=2, depth=depth, columns=3, activation=None, tile=tile, dot=dot
        )
        for depth in (4, 6)
    }
    kernels["narrow"] = narrow("narrow", rows=2, width=4, dot=dot)
    with kernel_options():
        library = tvm.compile(tvm.IRModule(kernels), target=HOST)
    for depth in (4, 6):
        x, weight = np.ones((2, depth), np.float32), np.ones((depth, 3), np.float32)
        inputs = (
            stored(x, dot)[0],
            half_panels(weight, tile.panel, dot),
            row_panels(np.zeros(3, np.float32), tile.panel),
        )
        y = tvm.runtime.tensor(np.zeros((2, 3), np.float32))
        library[f"kernel_{depth}"](*map(tvm.runtime.tensor, inputs), y)
        np.testing.assert_array_equal(y.numpy(), np.full((2, 3), depth))
