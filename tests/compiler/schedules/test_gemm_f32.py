import numpy as np
import pytest

from autocompress.compiler.schedules.gemm_f32 import Tile, gemm_f32, panels, row_panels
from autocompress.compiler.schedules.gemm_i4 import gemm_i4, nibble_panels
from autocompress.compiler.target import Target, machine_of
from tests.compiler.numpy_graph import ACTIVATIONS, grouped
from tests.compiler.running import run

HOST = machine_of(Target.host().llvm())
SIZES = [(1, 5, 3), (2, 37, 150), (7, 37, 41), (17, 70, 33), (11, 8, 64)]


@pytest.mark.parametrize(("rows", "depth", "columns"), SIZES)
@pytest.mark.parametrize("activation", [None, "gelu", "relu", "tanh"])
def test_the_product_has_bias_and_activation_at_every_odd_size(rows, depth, columns, activation):
    rng = np.random.default_rng(depth)
    x, weight, bias = (rng.standard_normal(size, np.float32) for size in ((rows, depth), (depth, columns), columns))
    tile = HOST.tile(rows, columns)
    kernel = gemm_f32("kernel", rows=rows, depth=depth, columns=columns, activation=activation, tile=tile)
    inputs = [x, panels(weight, tile.panel), row_panels(bias, tile.panel)]
    (y,) = run(kernel, inputs, [((rows, columns), "float32")])
    expected = x.astype(np.float64) @ weight + bias
    if activation is not None:
        expected = ACTIVATIONS[activation](expected)
    # Rounding of `depth` products, plus the error of the activation.
    np.testing.assert_allclose(y, expected, atol=depth * 2**-23 * 8 + 2e-6)


@pytest.mark.parametrize(("rows", "depth", "columns"), SIZES)
@pytest.mark.parametrize(("lanes", "vectors"), [(4, 2), (16, 2), (16, 3), (16, 4)])
def test_the_int4_product_unpacks_every_nibble_and_scale(rows, depth, columns, lanes, vectors):
    rng = np.random.default_rng(columns)
    x = rng.standard_normal((rows, depth), np.float32)
    weight = rng.integers(-8, 8, (depth, columns), dtype=np.int8)
    scale = rng.uniform(0.01, 0.1, (-(-depth // 32), columns)).astype(np.float32)
    tile = Tile(rows=6, panel=vectors * lanes, lanes=lanes)
    kernel = gemm_i4("kernel", rows=rows, depth=depth, columns=columns, activation=None, tile=tile)
    bias = row_panels(np.zeros(columns, np.float32), tile.panel)
    inputs = [x, nibble_panels(weight, tile.panel), panels(scale, tile.panel), bias]
    (y,) = run(kernel, inputs, [((rows, columns), "float32")])
    expected = x.astype(np.float64) @ (weight * grouped(scale, axis=0, width=depth))
    np.testing.assert_allclose(y, expected, atol=depth * 2**-23 * 8)


def test_int4_weights_take_half_a_byte():
    weight = np.random.default_rng(0).integers(-8, 8, (64, 96), dtype=np.int8)
    assert nibble_panels(weight, 32).nbytes == weight.size / 2
