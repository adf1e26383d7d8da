import numpy as np
import pytest

from autocompress.compiler.graph import bf16_bits, random_weights
from autocompress.compiler.packing import nibble_rows
from autocompress.compiler.schedules.embed import lookup
from autocompress.compiler.target import Target, machine_of
from autocompress.shape import EMBEDDING_BITS, ModelShape
from tests.compiler.numpy_graph import NumpyGraph
from tests.compiler.running import run

LANES = machine_of(Target.host().llvm()).lanes


@pytest.mark.parametrize("bits", EMBEDDING_BITS)
@pytest.mark.parametrize("width", [1, 16, 17, 33, 64, 100])
def test_rows_are_gathered_and_scaled(bits, width):
    shape = ModelShape("bert", 11, 9, width, 8, (), 2, embedding_bits=bits)
    weights = random_weights(shape)
    if bits in (8, 4):
        sizes = weights["embeddings.scale"].shape
        weights["embeddings.scale"] = np.random.default_rng(1).uniform(0.01, 1, sizes).astype(np.float32)
    ids = np.array([[10, 0, 3, 3, 7], [1, 2, 10, 9, 9]])
    kernel = lookup("kernel", bits=bits, batch=2, tokens=5, vocabulary=11, width=width, lanes=LANES)
    word = weights["embeddings.word"]
    inputs = [ids, {4: nibble_rows, 16: bf16_bits}.get(bits, np.asarray)(word)]
    inputs += [weights["embeddings.scale"]] if bits in (8, 4) else []
    (y,) = run(kernel, inputs, [((10, width), "float32")])
    expected = NumpyGraph(weights, ids, None).lookup("embeddings", bits).reshape(10, width)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
