from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from autocompress.cost import Artifact
from autocompress.engines import open_artifact
from autocompress.errors import UnsupportedError
from autocompress.feeds import PIXELS, TEXT, Feed, check_feeds, drawn, feeds_of, of_text, read_feeds
from autocompress.shape import Pixels

IMAGE = Pixels(channels=3, height=8, width=6, patch=2)


def refused(given, feeds) -> UnsupportedError:
    with pytest.raises(UnsupportedError) as caught:
        check_feeds(given, feeds)
    assert caught.value.right
    assert caught.value.next_step
    return caught.value


def test_feeds_survive_their_json():
    for feeds in (TEXT, feeds_of(IMAGE)):
        assert read_feeds(json.loads(json.dumps([feed.to_dict() for feed in feeds]))) == feeds


def test_text_is_not_longer_than_a_library_and_may_be_shorter():
    compiled = tuple(Feed(feed.name, (1, 10), feed.dtype) for feed in TEXT)
    for tokens in (1, 10):
        check_feeds(of_text(np.zeros((3, tokens), np.int64)), compiled)
    assert "11 tokens" in refused(of_text(np.zeros((1, 11), np.int64)), compiled).wrong
    check_feeds(of_text(np.zeros((1, 11), np.int64)), TEXT)


@pytest.mark.parametrize("dimensions", [(1, 1, 8, 6), (1, 3, 6, 8), (1, 3, 8, 5), (3, 8, 6)])
def test_images_have_the_very_dimensions_that_a_model_reads(dimensions):
    check_feeds({PIXELS: np.zeros((5, 3, 8, 6), np.float32)}, feeds_of(IMAGE))
    error = refused({PIXELS: np.zeros(dimensions, np.float32)}, feeds_of(IMAGE))
    assert " x ".join(map(str, dimensions)) in error.wrong
    assert "3 x 8 x 6" in error.right


def test_a_model_is_given_all_that_it_reads_and_nothing_else():
    error = refused({"input_ids": np.zeros((1, 3), np.int64)}, TEXT)
    assert error.wrong == "A model that reads input_ids and attention_mask is given input_ids."
    assert "pixel_values" in refused(of_text(np.zeros((1, 3), np.int64)), feeds_of(IMAGE)).wrong


def test_what_is_drawn_is_what_a_model_reads():
    for feeds in (TEXT, feeds_of(IMAGE)):
        check_feeds(drawn(feeds, vocabulary=7, seed=0, batch=4, tokens=5), feeds)
    ids = drawn(TEXT, vocabulary=7, seed=0, batch=400, tokens=5)["input_ids"]
    assert set(ids.flatten()) == set(range(7))


def test_an_onnx_model_says_which_feeds_it_reads(tmp_path):
    pixels = helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, ["batch", 3, 8, 6])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    mean = helper.make_node("ReduceMean", [PIXELS, "axes"], ["logits"], keepdims=0)
    graph = helper.make_graph([mean], "mean", [pixels], [logits], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    run = open_artifact(Artifact(tmp_path / "model.onnx", "onnxruntime", 13), threads=1)
    assert run.feeds == feeds_of(IMAGE)
    given = drawn(run.feeds, vocabulary=0, seed=0, batch=2)
    np.testing.assert_allclose(run(given), given[PIXELS].mean((2, 3)), atol=1e-6)
    with pytest.raises(UnsupportedError, match="pixel_values"):
        run({PIXELS: np.zeros((2, 3, 8, 8), np.float32)})
