import numpy as np
import pytest

from autocompress.compiler.schedules.attention import attention
from autocompress.compiler.schedules.selection import most_significant, take_rows
from autocompress.compiler.target import Target, machine_of
from tests.compiler.numpy_graph import NumpyGraph
from tests.compiler.running import run

LANES = machine_of(Target.host().llvm()).lanes


def masks(tokens, real):
    return (np.arange(tokens) < np.array(real)[:, None]).astype(np.int64)


@pytest.mark.parametrize(
    ("tokens", "heads", "width", "real"),
    [(1, 1, 1, [1]), (9, 3, 5, [4]), (33, 2, 64, [33, 7, 32]), (40, 1, 37, [1, 40]), (17, 3, 32, [0, 17]),
     (300, 2, 8, [270])],
)  # fmt: skip
def test_attention_received_is_summed_over_the_real_tokens_that_look_at_others(tokens, heads, width, real):
    rows, mask = (len(real) * tokens, heads * width), masks(tokens, real)
    qkv = np.random.default_rng(width).standard_normal((rows[0], 3 * rows[1])).astype(np.float32)
    kernel = attention("kernel", batch=len(real), tokens=tokens, heads=heads, width=width, lanes=LANES, received=True)
    y, received = run(kernel, [qkv, mask], [(rows, "float32"), ((len(real) * heads, tokens), "float32")])
    split = qkv.reshape(len(real), tokens, -1).astype(np.float64)
    expected, sums = NumpyGraph({}, None, mask).attention_received(split, heads, width)
    np.testing.assert_allclose(y, expected.reshape(rows), atol=2e-6)
    np.testing.assert_allclose(received.reshape(len(real), heads, tokens).sum(1), sums, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("tokens", "heads", "most", "real"),
    [(2, 1, 1, [2]), (9, 3, 4, [9, 3]), (33, 2, 32, [33, 7, 20]), (70, 1, 19, [1, 70]), (512, 2, 100, [400])],
)
def test_the_first_token_then_the_most_significant_then_padding_go_on(tokens, heads, most, real):
    mask = masks(tokens, real)
    # Multiples of 1/8 have exact sums and many ties.
    received = (np.random.default_rng(most).integers(0, 6, (len(real) * heads, tokens)) / 8).astype(np.float32)
    results = [((len(real), most), "int32"), ((len(real), most), "int64")]
    kernel = most_significant("kernel", batch=len(real), tokens=tokens, heads=heads, most=most, lanes=LANES)
    places, left = run(kernel, [received, mask], results)
    graph = NumpyGraph({}, None, mask)
    expected = graph.most_significant(received.reshape(len(real), heads, tokens).sum(1), most)
    assert (places == expected).all()
    assert (left == graph.mask).all()


@pytest.mark.parametrize(("tokens", "most", "width"), [(3, 1, 1), (17, 9, 37), (40, 39, 64)])
def test_rows_are_taken_from_their_own_sequence(tokens, most, width):
    rng = np.random.default_rng(width)
    x = rng.standard_normal((2 * tokens, width)).astype(np.float32)
    places = np.array([rng.permutation(tokens)[:most] for _ in range(2)], np.int32)
    kernel = take_rows("kernel", batch=2, tokens=tokens, most=most, width=width, lanes=LANES)
    (y,) = run(kernel, [x, places], [((2 * most, width), "float32")])
    assert (y.reshape(2, most, width) == np.take_along_axis(x.reshape(2, tokens, width), places[:, :, None], 1)).all()
