import numpy as np
import pytest
import torch

from autocompress.compiler.graph import weight_specs
from autocompress.compiler.onnx_graph import write_onnx
from autocompress.cost import Artifact
from autocompress.engines import open_artifact
from autocompress.errors import SourceError, UnsupportedError
from autocompress.feeds import of_text
from autocompress.models.load import ADAPTERS, adapter_of, load_classifier, load_shape
from autocompress.models.quantized import QuantizedEmbedding
from autocompress.shape import LayerShape
from tests.conftest import tiny_model

IDS = np.array([[2, 7, 9, 11, 5, 3], [2, 8, 3, 1, 1, 1]])
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])


def logits(model) -> np.ndarray:
    with torch.no_grad():
        return model(input_ids=torch.tensor(IDS), attention_mask=torch.tensor(MASK)).logits.numpy()


def test_the_shape_says_every_width(model, family):
    shape = adapter_of(model).shape(model)
    assert shape.layers == (LayerShape(heads=4, head_width=12, ffn=96),) * 3
    assert (shape.family, shape.vocabulary, shape.hidden, shape.classes) == (family, 60, 48, 3)
    assert shape.embedding == (32 if family == "electra" else 48)
    assert shape.positions == (38 if family == "roberta" else 40)


def test_the_weights_are_those_that_the_graph_asks_for(model):
    adapter = adapter_of(model)
    specs = {name: spec.dimensions for name, spec in weight_specs(adapter.shape(model)).items()}
    assert {name: array.shape for name, array in adapter.weights(model).items()} == specs


def test_the_graph_computes_what_transformers_computes(model, tmp_path):
    adapter = adapter_of(model)
    path = write_onnx(adapter.shape(model), adapter.weights(model), tmp_path / "model.onnx")
    run = open_artifact(Artifact(path, "onnxruntime", 6), threads=1)
    np.testing.assert_allclose(run(of_text(IDS, MASK)), logits(model), atol=2e-5)


def test_removed_heads_and_neurons_are_gone(model):
    adapter = adapter_of(model)
    before = sum(parameter.numel() for parameter in model.parameters())
    adapter.keep_heads(model, 1, [3, 0])
    adapter.keep_neurons(model, 1, [5, 90, 2])
    after = sum(parameter.numel() for parameter in model.parameters())
    removed_heads, removed_neurons = 2 * 12, 93
    assert before - after == removed_heads * (4 * 48 + 3) + removed_neurons * (2 * 48 + 1)
    assert adapter.shape(model).layers[1] == LayerShape(heads=2, head_width=12, ffn=3)


def test_removing_a_head_equals_silencing_its_output(model, family):
    adapter, silenced = adapter_of(model), tiny_model(family)
    modules = adapter.layers(silenced)[0]
    with torch.no_grad():
        modules.get(modules.output).weight[:, 12:24] = 0
    adapter.keep_heads(model, 0, [0, 2, 3])
    np.testing.assert_allclose(logits(model), logits(silenced), atol=1e-5)


def test_removing_a_layer_leaves_the_others_in_order(model):
    adapter = adapter_of(model)
    first, last = (id(adapter.layers(model)[index].layer) for index in (0, 2))
    adapter.keep_layers(model, [0, 2])
    assert [id(layer.layer) for layer in adapter.layers(model)] == [first, last]
    assert np.isfinite(logits(model)).all()


def test_removed_hidden_channels_are_gone_from_every_tensor(model, family):
    adapter = adapter_of(model)
    before = sum(parameter.numel() for parameter in model.parameters())
    kept = [40, 3, *range(10, 20)]
    adapter.keep_hidden(model, kept, range(12))
    after = sum(parameter.numel() for parameter in model.parameters())
    layer = 4 * 48 + 2 * 96 + 2 * 2 + 2  # columns and rows of its linears, two norms, two biases
    rows = {"bert": 60 + 40 + 2, "roberta": 60 + 40 + 1 + 1, "distilbert": 60 + 40, "electra": 32 - 1}[family]
    # Tables and their norm, or the projection and its bias; the layers; the head's linear and its bias.
    removed = 36 * (rows + 2) + 3 * 36 * layer + (48 * 48 - 12 * 12) + 36 + 3 * 36
    assert before - after == removed
    shape = adapter.shape(model)
    assert (shape.hidden, shape.embedding) == (12, 32 if family == "electra" else 12)
    assert model.config.hidden_size == 12
    specs = {name: spec.dimensions for name, spec in weight_specs(shape).items()}
    assert {name: array.shape for name, array in adapter.weights(model).items()} == specs
    assert np.isfinite(logits(model)).all()


def test_hidden_channels_are_kept_in_the_order_given_and_units_in_theirs(model):
    adapter, before = adapter_of(model), logits(model)
    norm, last = adapter.hidden_norms(model)[2].weight.clone(), adapter.classifier_linear(model).weight.clone()
    channels, units = np.random.default_rng(0).permutation(48), np.random.default_rng(1).permutation(48)
    adapter.keep_hidden(model, channels.tolist(), units.tolist())
    assert torch.equal(adapter.hidden_norms(model)[2].weight, norm[channels])
    assert torch.equal(adapter.classifier_linear(model).weight, last[:, units])
    np.testing.assert_allclose(logits(model), before, atol=1e-5)


def test_padding_stays_padding_and_weights_stay_trainable_in_a_narrower_model(model):
    adapter = adapter_of(model)
    padding = adapter.token_embedding(model).padding_idx
    adapter.keep_hidden(model.train(), range(30), range(30))
    assert adapter.token_embedding(model).padding_idx == padding
    assert all(parameter.requires_grad and module.training for module in model.modules() for parameter in
               module.parameters(recurse=False))  # fmt: skip


def test_a_rounded_table_is_not_narrowed(model, family):
    adapter = adapter_of(model)
    table = adapter.token_embedding(model).weight.detach()
    adapter.replace_token_embedding(model, QuantizedEmbedding(table.to(torch.bfloat16), None, 16))
    if family == "electra":
        adapter.keep_hidden(model, range(16), range(16))  # Its table is projected and keeps its width.
        assert adapter.shape(model).embedding_bits == 16
        return
    with pytest.raises(UnsupportedError, match="quantized or factorised"):
        adapter.keep_hidden(model, range(16), range(16))


def test_a_model_reloads_from_its_folder_as_it_was(model, family, tmp_path):
    model.save_pretrained(tmp_path)
    np.testing.assert_array_equal(logits(load_classifier(tmp_path)), logits(model))


def test_the_shape_is_known_without_weights(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert load_shape(tmp_path) == adapter_of(model).shape(model)


def test_a_model_without_a_classifier_is_refused_unless_it_is_to_be_fitted(tmp_path):
    tiny_model("bert").bert.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedError, match="finetune"):
        load_classifier(tmp_path)
    assert load_classifier(tmp_path, classes=("a", "b")) is not None


def test_a_new_set_of_classes_starts_a_new_classifier(tmp_path):
    tiny_model("bert").save_pretrained(tmp_path)
    model = load_classifier(tmp_path, classes=("a", "b", "c", "d", "e"))
    assert adapter_of(model).shape(model).classes == 5
    assert model.config.id2label[4] == "e"


def test_an_unknown_activation_is_refused():
    model = tiny_model("bert")
    model.config.hidden_act = "silu"
    with pytest.raises(UnsupportedError, match="silu"):
        ADAPTERS["bert"].shape(model)


@pytest.mark.parametrize("content", [None, "{", '{"a": 1}'])
def test_a_folder_without_a_readable_config_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(SourceError, match="config.json"):
        load_classifier(tmp_path)


def test_a_truncated_weight_file_is_refused(tmp_path):
    tiny_model("bert").save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(SourceError, match="cannot be read"):
        load_classifier(tmp_path)
