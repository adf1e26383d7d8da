"""Image families: what is read of a model gives its logits, whatever was taken away before."""

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2ForImageClassification, ViTConfig, ViTForImageClassification

from autocompress.compression.captures import output_linears
from autocompress.compression.recipes.features import Feature, observe
from autocompress.compression.repairs.sublayers import Walk, documents_of
from autocompress.errors import UnsupportedError
from autocompress.feeds import PIXELS
from autocompress.models.load import adapter_of, load_classifier, load_shape
from tests.compiler.numpy_graph import reference_of_images
from tests.compression.training_data import batches_of
from tests.conftest import IMAGE, IMAGE_FAMILIES, WIDTHS, tiny_model

IMAGES = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
EDITS = {
    "nothing": lambda adapter, model: None,
    "layers": lambda adapter, model: adapter.keep_layers(model, [0, 2]),
    "heads": lambda adapter, model: adapter.keep_heads(model, 1, [3, 0]),
    "neurons": lambda adapter, model: adapter.keep_neurons(model, 0, range(30)),
    "channels": lambda adapter, model: adapter.keep_hidden(model, range(40, 8, -1), range(32)),
}
SELECTING = {
    "tokens": lambda adapter, model: adapter.select_tokens(model, [12, 8, 1]),
    "tokens, then all": lambda adapter, model: [
        adapter.select_tokens(model, [12, 8, 1]),
        adapter.keep_layers(model, [0, 2]),
        adapter.keep_hidden(model, range(32), range(32)),
        adapter.keep_heads(model, 1, [1]),
    ],
}


def logits(model):
    with torch.no_grad():
        return model(pixel_values=IMAGES).logits.numpy()


def check(family, edit):
    model = tiny_model(family)
    adapter = adapter_of(model)
    edit(adapter, model)
    found = reference_of_images(adapter.shape(model), adapter.weights(model), IMAGES.numpy())
    np.testing.assert_allclose(found, logits(model), atol=1e-5)


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_shape_and_weights_give_the_logits_of_what_is_left(family, edit):
    check(family, EDITS[edit])


@pytest.mark.parametrize("edit", SELECTING)
@pytest.mark.parametrize("family", ["vit", "deit"])
def test_shape_and_weights_give_the_logits_where_tokens_are_left_out(family, edit):
    check(family, SELECTING[edit])


@pytest.mark.parametrize("value", [1.0, 0.3])
def test_layer_scales_are_folded_into_linears_and_change_no_logit(value):
    torch.manual_seed(0)
    model = Dinov2ForImageClassification(Dinov2Config(**WIDTHS, **IMAGE, layerscale_value=value)).eval()
    before = logits(model)
    adapter_of(model).fold(model)
    np.testing.assert_allclose(logits(model), before, atol=1e-6)
    scales = {name: each for name, each in model.named_parameters() if "lambda1" in name}
    assert all(bool((each == 1).all()) and not each.requires_grad for each in scales.values()) and scales


@pytest.mark.parametrize("family", IMAGE_FAMILIES)
def test_a_model_that_is_saved_and_loaded_is_the_same(family, tmp_path):
    model = tiny_model(family)
    model.save_pretrained(tmp_path)
    np.testing.assert_array_equal(logits(load_classifier(tmp_path)), logits(model))
    assert load_shape(tmp_path) == adapter_of(model).shape(model)


@pytest.mark.parametrize(
    ("config", "why"), [({"hidden_act": "quick_gelu"}, "quick_gelu"), ({"use_swiglu_ffn": True}, "gated")]
)
def test_what_the_graph_cannot_compute_is_refused(config, why):
    kind = (Dinov2Config, Dinov2ForImageClassification) if "use_swiglu_ffn" in config else None
    configuration, of = kind or (ViTConfig, ViTForImageClassification)
    model = of(configuration(**WIDTHS, **IMAGE, **config))
    with pytest.raises(UnsupportedError, match=why):
        adapter_of(model).shape(model)


def test_hidden_states_are_what_each_layer_hands_on(image_model):
    (batch,) = batches_of(image_model)(1, 0)
    with torch.no_grad():
        expected = image_model(**batch.inputs, output_hidden_states=True).hidden_states
        features = [Feature("hidden", layer) for layer in range(4)]
        found = observe(image_model, batch, features).features
    for feature in features:
        torch.testing.assert_close(found[feature], expected[feature.layer])


def test_a_walk_through_a_model_that_is_as_it_was_reads_what_the_model_reads(image_model):
    batches = batches_of(image_model)(2, 0)
    documents, walk = documents_of(image_model, batches), Walk(image_model, batches)
    for layer in range(3):
        attention = walk.attention(layer)
        torch.testing.assert_close(attention.sums, documents.sums[2 * layer])
        feed_forward = walk.feed_forward(layer, attention.sums)
        torch.testing.assert_close(feed_forward.sums, documents.sums[2 * layer + 1])
        module = output_linears(image_model)[2 * layer + 1].module
        assert feed_forward.inputs.shape == (len(feed_forward.sums), module.in_features)
        walk.advance(layer, feed_forward.sums)


def test_images_are_given_by_the_name_that_models_of_transformers_read(image_model):
    (batch,) = batches_of(image_model)(1, 0)
    assert set(batch.inputs) == {PIXELS}
    assert batch.attention_mask.shape[1] == adapter_of(image_model).shape(image_model).positions
