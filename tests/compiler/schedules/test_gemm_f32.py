import numpy as np
import pytest

from autocompress.compiler.packing import panels, row_panels
from autocompress.compiler.schedules.gemm_f32 import gemm_f32
from autocompress.compiler.target import Target, machine_of
from tests.compiler.numpy_graph import ACTIVATIONS
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
