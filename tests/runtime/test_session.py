import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from autocompress.compiler.build import build
from autocompress.compiler.graph import random_weights
from autocompress.engines import open_artifact
from autocompress.errors import SourceError, UnsupportedError
from autocompress.feeds import feeds_of, of_text
from autocompress.runtime.session import Session
from autocompress.shape import LayerShape, ModelShape, Pixels

SHAPE = ModelShape("bert", 6, 8, 16, 16, (LayerShape(2, 8, 32),), 3)


@pytest.fixture
def package(tmp_path):
    artifact = build(SHAPE, random_weights(SHAPE), tmp_path / "model", engine="onnxruntime", tokens=5)
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "one": 3, "two": 4}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    manifest = {
        "engine": "onnxruntime",
        "artifacts": {"onnxruntime": "model.onnx"},
        "labels": ["a", "b", "c"],
        "tokens": 5,
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path, artifact


def test_the_class_and_its_probability_are_the_softmax_of_the_logits(package):
    folder, artifact = package
    ids = np.array([[1, 3, 4, 3, 2]])
    (logits,) = open_artifact(artifact, threads=1)(of_text(ids)).astype(np.float64)
    (found,) = Session(folder).classify(["one two one"])
    assert found.label == "abc"[logits.argmax()]
    assert found.probability == pytest.approx(np.exp(logits.max()) / np.exp(logits).sum())


def test_a_longer_text_is_cut_to_the_tokens_of_the_package(package):
    folder, _ = package
    session = Session(folder)
    assert session.classify(["one two one two two two two"]) == session.classify(["one two one"])


def test_each_text_is_answered_in_its_place(package):
    session = Session(package[0])
    texts = ["one", "two two", "other"]
    assert session.classify(texts) == [session.classify([text])[0] for text in texts]


def test_an_engine_without_artifact_is_refused(package):
    with pytest.raises(UnsupportedError, match="onnxruntime"):
        Session(package[0], engine="tvm")


def test_a_folder_that_is_no_package_is_refused(tmp_path):
    with pytest.raises(SourceError, match="manifest.json"):
        Session(tmp_path)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_package_that_lost_a_file_is_refused_by_that_file(package, name):
    folder, _ = package
    (folder / name).unlink()
    with pytest.raises(SourceError, match=name):
        Session(folder)


@pytest.mark.parametrize("text", ["[]", "{}", '{"artifacts": '])
def test_a_manifest_that_is_none_is_refused(package, text):
    folder, _ = package
    (folder / "manifest.json").write_text(text)
    with pytest.raises(SourceError, match="not an exported package"):
        Session(folder)


@pytest.fixture
def pictures(tmp_path):
    """A package that answers with the mean of each channel; its images are 2 x 4."""
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, 2, 4])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    mean = helper.make_node("ReduceMean", ["pixel_values", "axes"], ["logits"], keepdims=0)
    graph = helper.make_graph([mean], "mean", [pixels], [logits], [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path / "m.onnx")
    told = {"image_mean": [0.5, 0.5, 0.4], "image_std": [0.2, 0.5, 0.5], "rescale_factor": 1 / 255}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    manifest = {"engine": "onnxruntime", "artifacts": {"onnxruntime": "m.onnx"}, "labels": ["r", "g", "b"], "tokens": 3}
    manifest["feeds"] = [feed.to_dict() for feed in feeds_of(Pixels(3, 2, 4, 2))]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def test_images_are_normalized_as_the_packages_processor_says(pictures):
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 3), dtype=np.uint8)
    logits = ((image / 255 - [0.5, 0.5, 0.4]) / [0.2, 0.5, 0.5]).mean((0, 1))
    (found,) = Session(pictures).classify([image])
    assert found.label == "rgb"[logits.argmax()]
    assert found.probability == pytest.approx(np.exp(logits.max()) / np.exp(logits).sum(), rel=1e-5)


def test_images_of_another_size_and_texts_are_refused_by_a_package_of_images(pictures):
    with pytest.raises(UnsupportedError, match="1 x 3 x 4 x 2"):
        Session(pictures).classify([np.zeros((4, 2, 3), np.uint8)])
    with pytest.raises(UnsupportedError, match="classify a str"):
        Session(pictures).classify(["one"])


def test_images_are_refused_by_a_package_of_text(package):
    with pytest.raises(UnsupportedError, match="reads texts"):
        Session(package[0]).classify([np.zeros((2, 4, 3), np.uint8)])


def test_a_package_of_images_without_a_processor_is_refused(pictures):
    (pictures / "preprocessor_config.json").unlink()
    with pytest.raises(SourceError, match="preprocessor_config.json missing"):
        Session(pictures)
