import torch

from autocompress.compression.importance import UnitScores, fisher_scores, order_units
from autocompress.models.load import adapter_of
from tests.compression.training_data import batches


def logits(model):
    with torch.no_grad():
        batch = batches(1)[0]
        return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits


def test_a_unit_without_influence_scores_zero_and_comes_last(model):
    adapter = adapter_of(model)
    layer = adapter.layers(model)[1]
    with torch.no_grad():
        layer.get(layer.output).weight[:, 12:24] = 0
        layer.get(layer.ffn_out).weight[:, 17] = 0
    scores = fisher_scores(model, batches(2))
    assert float(scores[1].heads[1]) == 0
    assert float(scores[1].neurons[17]) == 0
    assert int((scores[1].heads == 0).sum()) == 1


def test_scores_are_squared_mask_gradients_summed_over_batches(model):
    each = [fisher_scores(model, [batch])[0].neurons for batch in batches(2)]
    together = fisher_scores(model, batches(2))[0].neurons
    torch.testing.assert_close(together, each[0] + each[1])
    batch, layer, step = batches(1)[0], adapter_of(model).layers(model)[0], 1e-2

    def loss(scale: float) -> float:
        linear = layer.get(layer.ffn_out)
        with torch.no_grad():
            linear.weight[:, 3] *= scale
            value = torch.nn.functional.cross_entropy(logits(model), batch.labels)
            linear.weight[:, 3] /= scale
        return float(value)

    slope = (loss(1 + step) - loss(1 - step)) / (2 * step)
    torch.testing.assert_close(float(each[0][3]), slope**2, rtol=0.05, atol=1e-8)


def test_ordering_units_changes_no_output(model):
    before = logits(model)
    scores = fisher_scores(model, batches(2))
    torch.testing.assert_close(logits(order_units(model, scores)), before, atol=1e-5, rtol=1e-5)
    again = fisher_scores(model, batches(2))
    for layer in again:
        assert (layer.neurons[:-1] >= layer.neurons[1:] * 0.999 - 1e-9).all()


def test_hooks_are_taken_off_again(model):
    fisher_scores(model, batches(1))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_equal_scores_keep_their_order(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    order_units(model, [UnitScores(torch.zeros(4), torch.zeros(96))] * 3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
