import numpy as np
import pytest

from autocompress.compiler.schedules.attention import attention
from autocompress.compiler.target import Target, machine_of
from tests.compiler.numpy_graph import NumpyGraph
from tests.compiler.running import run

LANES = machine_of(Target.host().llvm()).lanes


@pytest.mark.parametrize(
    ("tokens", "heads", "width", "real"), [(1, 1, 1, 1), (9, 3, 5, 4), (33, 2, 64, 33), (40, 1, 37, 1), (17, 3, 32, 0)]
)
def test_attention_follows_the_mask_at_every_odd_size(tokens, heads, width, real):
    qkv = np.random.default_rng(width).standard_normal((tokens, 3 * heads * width)).astype(np.float32)
    mask = (np.arange(tokens) < real).astype(np.int64)[None]
    kernel = attention("kernel", tokens=tokens, heads=heads, width=width, lanes=LANES)
    (y,) = run(kernel, [qkv, mask], [((tokens, heads * width), "float32")])
    expected = NumpyGraph({}, None, mask).attention(qkv[None].astype(np.float64), heads, width)[0]
    np.testing.assert_allclose(y, expected, atol=2e-6)
