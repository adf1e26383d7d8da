import numpy as np
import pytest
from scipy.special import ndtr

from autocompress.compiler.schedules import elementwise
from autocompress.compiler.schedules.vectors import argument, for_spans, kernel, load, store
from tests.compiler.numpy_graph import ACTIVATIONS
from tests.compiler.running import run

POINTS = np.concatenate([np.linspace(-12, 12, 24001), np.linspace(-1e-3, 1e-3, 1001)]).astype(np.float32)


def evaluate(function, points):
    def write():
        x, y = argument("x", points.shape), argument("y", points.shape)
        for_spans(
            len(points),
            16,
            lambda start, lanes: store(y, function(load(x, start=start, lanes=lanes), lanes), start=start, lanes=lanes),
        )

    return run(kernel("kernel", write), [points], [(points.shape, "float32")])[0].astype(np.float64)


@pytest.mark.parametrize("activation", ["gelu", "tanh", "relu"])
def test_activations_are_within_two_millionths(activation):
    y = evaluate(lambda x, lanes: elementwise.activate(x, activation, lanes), POINTS)
    assert np.abs(y - ACTIVATIONS[activation](POINTS.astype(np.float64))).max() <= 2e-6


def test_the_normal_distribution_function_is_within_two_millionths():
    assert np.abs(evaluate(elementwise.normal_share, POINTS) - ndtr(POINTS.astype(np.float64))).max() <= 2e-6


def test_powers_of_two_have_a_relative_error_below_three_ten_millionths_and_no_underflow_trap():
    points = np.linspace(-126, 127, 50001).astype(np.float32)
    exact = np.exp2(points.astype(np.float64))
    assert np.abs(evaluate(elementwise.exp2, points) / exact - 1).max() < 3e-7
    assert (evaluate(elementwise.exp2, np.array([-1e3, -3e38], np.float32)) < 2e-38).all()


def test_large_inputs_of_gelu_stay_finite():
    points = np.array([-3e4, -50, 50, 3e4], np.float32)
    y = evaluate(lambda x, lanes: elementwise.activate(x, "gelu", lanes), points)
    np.testing.assert_allclose(y, [0, 0, 50, 3e4], atol=1e-2)


@pytest.mark.parametrize("width", [1, 17, 64])
def test_a_sum_begins_again_with_its_second_side_after_each_period(width):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, width), np.float32), rng.standard_normal((3, width), np.float32)
    kernel = elementwise.add("kernel", rows=6, period=3, width=width, lanes=8)
    (z,) = run(kernel, [x, y], [((6, width), "float32")])
    np.testing.assert_array_equal(z, x + np.concatenate([y, y]))
