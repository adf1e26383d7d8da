import torch

from autocompress.compression.layer_inputs import inputs_of
from autocompress.models.load import adapter_of
from tests.compression.padded import padded
from tests.conftest import tiny_model


def test_a_layer_reads_the_hidden_states_before_it():
    model, batch = tiny_model("bert"), padded()
    layer = adapter_of(model).layers(model)[1]
    ((found, real),) = inputs_of(model, layer.get(layer.query), [batch])
    with torch.no_grad():
        hidden = model(**vars(batch), output_hidden_states=True).hidden_states[1]
    assert torch.equal(found, hidden)
    assert torch.equal(real, batch.attention_mask.bool())


def test_nothing_behind_the_module_runs_and_the_model_is_left_as_it_was(model):
    layers, reached = adapter_of(model).layers(model), []
    layers[2].get(layers[2].query).register_forward_hook(lambda *_: reached.append(True))
    assert len(list(inputs_of(model, layers[1].get(layers[1].ffn_in), [padded(), padded(3)]))) == 2
    assert not reached
    with torch.no_grad():
        model(**vars(padded()))
    assert reached


def test_behind_layers_that_pass_on_fewer_tokens_the_real_ones_come_first():
    """Documents of 3, 4, 5 and 6 tokens, of which the first layer passes on 4."""
    model = tiny_model("bert")
    adapter = adapter_of(model)
    adapter.select_tokens(model, (4, 0, 0))
    layer = adapter.layers(model)[1]
    noisy = padded()
    noisy.input_ids[noisy.attention_mask == 0] = 39
    ((found, real),), ((other, _),) = (inputs_of(model, layer.get(layer.query), [one]) for one in (padded(), noisy))
    assert real.tolist() == [[True, True, True, False], *[[True] * 4] * 3]
    assert torch.equal(found[real], other[real])
    assert not torch.equal(found[~real], other[~real])
