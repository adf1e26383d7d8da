import numpy as np
import pytest

from autocompress.compiler.schedules.attention import attention
from autocompress.compiler.target import Target, machine_of
from tests.compiler.numpy_graph import NumpyGraph
from tests.compiler.running import run

LANES = machine_of(Target.host().llvm()).lanes


@pytest.mark.parametrize(
    ("tokens", "heads", "width", "real"),
    [
        (1, 1, 1, [1]),
        (9, 3, 5, [4]),
        (33, 2, 64, [33, 7, 32]),
        (40, 1, 37, [1, 40]),
        (17, 3, 32, [0, 17]),
        (512, 1, 8, [500]),
    ],
)
def test_attention_follows_each_mask_at_every_odd_size(tokens, heads, width, real):
    rows = (len(real) * tokens, heads * width)
    qkv = np.random.default_rng(width).standard_normal((rows[0], 3 * rows[1])).astype(np.float32)
    mask = (np.arange(tokens) < np.array(real)[:, None]).astype(np.int64)
    kernel = attention("kernel", batch=len(real), tokens=tokens, heads=heads, width=width, lanes=LANES)
    (y,) = run(kernel, [qkv, mask], [(rows, "float32")])
    split = qkv.reshape(len(real), tokens, -1).astype(np.float64)
    expected = NumpyGraph({}, None, mask).attention(split, heads, width)
    np.testing.assert_allclose(y, expected.reshape(rows), atol=2e-6)
