"""The contract of the compiler: every engine computes the graph that the float64 reference computes."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from autocompress.compiler.build import BUILDERS, build
from autocompress.compiler.graph import random_weights, round_bf16, weight_specs
from autocompress.compiler.target import Target, machine_of
from autocompress.engines import ENGINES, open_artifact
from autocompress.feeds import of_text
from autocompress.shape import BITS, WEIGHT_GROUPS, LayerShape, ModelShape, WeightGrid, by_block, nearest_embedding_bits
from tests.compiler.numpy_graph import NARROW, reference

LAYERS = st.builds(LayerShape, heads=st.integers(1, 3), head_width=st.sampled_from([3, 8, 44]), ffn=st.integers(1, 290),
                   most_tokens=st.sampled_from([0, 1, 2, 9, 40]))  # fmt: skip


@st.composite
def cases(draw, bits, activations="dynamic"):
    """Return a shape, ids and a mask in which every sequence but the first has padding of its own."""
    grid = WeightGrid(draw(st.sampled_from(WEIGHT_GROUPS)), draw(st.booleans()))
    layers = tuple(
        replace(layer.with_bits(*by_block(bits, bits)), activations=activations).with_grid(grid)
        for layer in draw(st.lists(LAYERS, min_size=1, max_size=2))
    )
    hidden = draw(st.sampled_from([8, 33, 50, 130]))
    shape = ModelShape(
        family="bert",
        vocabulary=50,
        positions=512,
        embedding=draw(st.sampled_from([hidden, 24])),
        hidden=hidden,
        layers=layers,
        classes=draw(st.integers(1, 5)),
        activation=draw(st.sampled_from(["gelu", "relu"])),
        head_activation=draw(st.sampled_from(["tanh", "relu", "gelu"])),
        embedding_bits=nearest_embedding_bits(bits),
        embedding_rank=draw(st.sampled_from([0, 5, 36])),
    )
    batch, tokens = draw(st.integers(1, 8)), draw(st.one_of(st.integers(1, 40), st.sampled_from([64, 129, 511, 512])))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    lengths = np.append(tokens, rng.integers(1, tokens + 1, batch - 1))
    mask = (np.arange(tokens) < lengths[:, None]).astype(np.int64)
    return shape, rng.integers(0, 50, (batch, tokens)), mask


def spread_weights(shape):
    """Return weights that keep signals of size 1 and differ between channels, so that none can be mixed up unseen."""
    rng = np.random.default_rng(5)
    weights, specs = random_weights(shape), weight_specs(shape)
    for name, values in weights.items():
        if name.endswith(".scale"):
            largest = np.abs(
                weights[name.replace(".scale", ".weight").replace("embeddings.weight", "embeddings.word")]
            ).max()
            weights[name] = (rng.uniform(0.3, 1, values.shape) / largest).astype(np.float32)
        elif name.endswith((".step", ".inverse")):
            # Ranges of about -2.5 to 2.5 hold most values, and some are clipped.
            weights[name] = (values * rng.uniform(0.4, 0.8, values.shape)).astype(np.float32)
        elif name.endswith(("norm.weight", "norm.bias")):
            weights[name] = (values + rng.uniform(-0.3, 0.3, values.shape)).astype(np.float32)
        elif values.dtype == np.float32:
            weights[name] = round_bf16(values * 10) if specs[name].dtype == "bf16" else values * 10
    return weights


ROUNDED = {
    "onnxruntime": lambda x: x,
    "tvm": NARROW[machine_of(Target.host().llvm()).half.stored],
}
"""What becomes of activations before they are multiplied with bfloat16 weights."""


def test_every_engine_can_be_built_and_opened():
    assert set(BUILDERS) == set(ENGINES)


@pytest.mark.parametrize(
    ("bits", "activations"), [*((bits, "dynamic") for bits in BITS), (8, "static"), (8, "smoothed"), (8, "token")]
)
def test_every_engine_computes_the_reference(bits, activations):
    @settings(max_examples=4, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    @given(cases(bits, activations))
    def check(case):
        shape, ids, mask = case
        weights = spread_weights(shape)
        for engine in BUILDERS:
            with tempfile.TemporaryDirectory() as folder:
                batch, tokens = ids.shape
                artifact = build(shape, weights, Path(folder, "model"), engine=engine, tokens=tokens, batch=batch)
                expected = reference(shape, weights, ids, mask, ROUNDED[engine])
                # A value on the edge of an 8-bit step may fall to either side; in f32 only rounding differs. At
                # 4 bits and fewer the step is that of a group rather than of the whole tensor. At 16 bits an activation
                # that the processor rounds may do the same.
                tolerance = {32: 2e-5, 8: 2e-2}.get(bits, 1e-2) * max(1.0, np.abs(expected).max())
                got = open_artifact(artifact, threads=1)(of_text(ids, mask))
                np.testing.assert_allclose(got, expected, atol=tolerance, err_msg=engine)

    check()
