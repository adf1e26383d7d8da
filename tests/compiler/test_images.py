"""Encoders of images: every engine computes the graph that the float64 reference computes."""

from dataclasses import replace

import numpy as np
import pytest

from autocompress.compiler.build import BUILDERS, build
from autocompress.compiler.target import Target, machine_of
from autocompress.engines import library_index, open_artifact
from autocompress.errors import UnsupportedError
from autocompress.feeds import PIXELS
from autocompress.predictors.activations import planned_bytes
from autocompress.shape import BITS, LayerShape, ModelShape, Pixels, by_block
from tests.compiler.numpy_graph import reference_of_images
from tests.compiler.test_engines_agree import ROUNDED, spread_weights

IMAGES = np.random.default_rng(0).standard_normal((3, 3, 28, 31)).astype(np.float32)
TOLERANCE = {32: 2e-5, 8: 2e-2}
"""Of the largest logit, else 1e-2. A value on the edge of a step of its activations may fall to either side."""


def at(bits=32, *, patch=7, learned=1, most=(0, 0), head="first", **changes):
    pixels = Pixels(3, 28, 31, patch, learned)
    layers = tuple(LayerShape(2, 20, 70, *by_block(bits, bits), most_tokens=each) for each in most)
    shape = ModelShape("vit", 0, pixels.patches + learned, 40, 40, layers, 5, order="pre", head=head, pixels=pixels)
    return replace(shape, norm_epsilon=1e-6, **changes)


def check(shape, folder, engine):
    weights = spread_weights(shape)
    artifact = build(shape, weights, folder / "model", engine=engine, tokens=shape.positions)
    run = open_artifact(artifact, threads=1)
    # One at a time: activations over the range of a whole batch would depend on the others.
    got = np.concatenate([run({PIXELS: image[None]}) for image in IMAGES])
    expected = np.concatenate([reference_of_images(shape, weights, image[None], ROUNDED[engine]) for image in IMAGES])
    bits = min(min(layer.bits) for layer in shape.layers)
    np.testing.assert_allclose(got, expected, atol=TOLERANCE.get(bits, 1e-2) * np.abs(expected).max())


@pytest.mark.parametrize("engine", BUILDERS)
@pytest.mark.parametrize("bits", BITS)
def test_every_engine_computes_the_reference_at_every_width(bits, engine, tmp_path):
    check(at(bits), tmp_path, engine)


@pytest.mark.parametrize("engine", BUILDERS)
@pytest.mark.parametrize(
    "shape",
    [
        at(patch=14, learned=5, head="first_and_mean"),
        at(patch=4, head="dense", activation="relu"),
        at(patch=9, learned=2, head_bits=8),
        at(most=(9, 4)),
        at(most=(9, 1)),
        at(8, patch=4, most=(20, 1)),
    ],
    ids=["mean behind registers", "dense", "rest of the image", "fewer tokens", "first alone", "few bits, few tokens"],
)
def test_every_engine_computes_heads_patches_and_fewer_tokens(shape, engine, tmp_path):
    check(shape, tmp_path, engine)


@pytest.mark.parametrize("engine", BUILDERS)
def test_several_images_at_once_give_what_each_gives(engine, tmp_path):
    shape = at()
    artifact = build(shape, spread_weights(shape), tmp_path / "model", engine=engine, tokens=shape.positions, batch=2)
    run = open_artifact(artifact, threads=1)
    singly = np.concatenate([run({PIXELS: image[None]}) for image in IMAGES])
    np.testing.assert_allclose(run({PIXELS: IMAGES}), singly, atol=1e-5)


@pytest.mark.parametrize("engine", BUILDERS)
def test_images_of_another_size_are_refused_with_the_size_that_is_read(engine, tmp_path):
    shape = at()
    artifact = build(shape, spread_weights(shape), tmp_path / "model", engine=engine, tokens=shape.positions)
    with pytest.raises(UnsupportedError) as caught:
        open_artifact(artifact, threads=1)({PIXELS: IMAGES[..., :28]})
    assert "3 x 28 x 31" in caught.value.right


@pytest.mark.parametrize("tokens", [16, 18])
def test_an_image_has_the_tokens_that_it_has(tokens, tmp_path):
    with pytest.raises(UnsupportedError, match=f"{tokens} tokens"):
        build(at(), spread_weights(at()), tmp_path / "model", engine="onnxruntime", tokens=tokens)


def test_the_memory_that_is_planned_is_what_the_library_asks_for(tmp_path):
    shape = at(8)
    artifact = build(shape, spread_weights(shape), tmp_path / "model", engine="tvm", tokens=shape.positions)
    planned = planned_bytes(shape, shape.positions, machine_of(Target.host().llvm()))
    assert 0 < library_index(artifact.path)["activation_bytes"] <= planned


def test_a_shape_of_images_reads_back_from_json():
    assert ModelShape.from_dict(at(most=(9, 1)).to_dict()) == at(most=(9, 1))
    assert "28 x 31 pixels in patches of 7" in at().describe()
