import numpy as np
import pytest

from autocompress.compiler.schedules.norm import norm
from autocompress.compiler.target import Target, machine_of
from tests.compiler.numpy_graph import NumpyGraph
from tests.compiler.running import run

LANES = machine_of(Target.host().llvm()).lanes


@pytest.mark.parametrize("width", [1, 7, 32, 45])
@pytest.mark.parametrize("residual", [False, True])
def test_rows_are_normalized_with_their_residual(width, residual):
    rng = np.random.default_rng(width)
    x, other = (rng.standard_normal((5, width)).astype(np.float32) + 3 for _ in range(2))
    parts = {f"n.{part}": rng.standard_normal(width).astype(np.float32) for part in ("weight", "bias")}
    kernel = norm("kernel", rows=5, width=width, epsilon=1e-5, residual=residual, lanes=LANES)
    inputs = [x, *([other] if residual else []), *parts.values()]
    (y,) = run(kernel, inputs, [((5, width), "float32")])
    total = x.astype(np.float64) + (other if residual else 0)
    np.testing.assert_allclose(y, NumpyGraph(parts, None, None).norm(total, "n", 1e-5), atol=2e-5)
