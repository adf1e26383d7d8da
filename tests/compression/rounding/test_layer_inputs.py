import torch

from autocompress.compression.captures import module_inputs
from autocompress.compression.rounding.layer_inputs import LayerInputs
from autocompress.models.load import adapter_of
from tests.compression.padded import padded
from tests.conftest import tiny_model


def test_modules_read_what_they_read_in_the_whole_model(model):
    """Token by token, in every layer, also where layers pass on fewer tokens."""
    for most in ((0, 0, 0), (4, 0, 2), (0, 3, 1)):
        adapter_of(model).select_tokens(model, most)
        layers, inputs = adapter_of(model).layers(model), LayerInputs(model, [padded(), padded(7)])
        for layer in layers:
            for path in (layer.query, layer.output, layer.ffn_in, layer.ffn_out):
                pairs = zip(
                    inputs.of(path), module_inputs(model, [layer.get(path)], [padded(), padded(7)]), strict=True
                )
                for (x, real), (_, (expected,)) in pairs:
                    torch.testing.assert_close(x[real], expected[real], rtol=1e-4, atol=1e-4)
            inputs.advance()


def test_behind_layers_that_pass_on_fewer_tokens_the_real_ones_come_first():
    """Documents of 3, 4, 5 and 6 tokens, of which the first layer passes on 4."""
    model, noisy = tiny_model("bert"), padded()
    adapter_of(model).select_tokens(model, (4, 0, 0))
    noisy.input_ids[noisy.attention_mask == 0] = 39
    found = []
    for batch in (padded(), noisy):
        inputs = LayerInputs(model, [batch])
        inputs.advance()
        found += list(inputs.of(adapter_of(model).layers(model)[1].query))
    (x, real), (other, _) = found
    assert real.tolist() == [[True, True, True, False], *[[True] * 4] * 3]
    torch.testing.assert_close(x[real], other[real])
    assert not torch.allclose(x[~real], other[~real])


def test_nothing_behind_a_module_runs_and_the_model_is_left_as_it_was(model):
    layer, reached = adapter_of(model).layers(model)[0], []
    layer.get(layer.ffn_out).register_forward_hook(lambda *_: reached.append(True))
    assert len(list(LayerInputs(model, [padded(), padded(3)]).of(layer.ffn_in))) == 2
    assert not reached
    with torch.no_grad():
        model(**vars(padded()))
    assert reached
