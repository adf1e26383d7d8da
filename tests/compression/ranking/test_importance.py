import copy

import pytest
import torch

from autocompress.compression.ranking.importance import (
    LayerRanking,
    Ranking,
    activation,
    by_removal,
    by_score,
    l2p,
    magnitude,
    reorder,
)
from autocompress.models.load import adapter_of
from tests.compression.training_data import batches


def logits(model):
    with torch.no_grad():
        batch = batches(1)[0]
        return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits


def test_equal_scores_keep_their_order():
    assert by_score(torch.tensor([1.0, 3.0, 1.0, 3.0])) == Ranking((1, 3, 0, 2), (3.0, 3.0, 1.0, 1.0))


def test_what_is_removed_last_comes_first_and_counts_with_the_largest_cost_so_far():
    assert by_removal([2, 0, 1], [1.0, 0.5, 4.0]) == Ranking((1, 0, 2), (4.0, 1.0, 1.0))


def test_magnitude_is_the_sum_of_squares_of_a_units_weights(model):
    layer = adapter_of(model).layers(model)[0]
    found = magnitude(model, [])[0]
    head = found.heads.order[0]
    rows = slice(12 * head, 12 * head + 12)
    parts = [layer.get(path).weight[rows].reshape(-1) for path in (layer.query, layer.key, layer.value)]
    expected = torch.cat([*parts, layer.get(layer.output).weight[:, rows].reshape(-1)]).square().sum().detach()
    assert found.heads.importance[0] == pytest.approx(float(expected), rel=1e-5)
    neuron = found.neurons.order[-1]
    both = torch.cat([layer.get(layer.ffn_in).weight[neuron], layer.get(layer.ffn_out).weight[:, neuron]])
    assert found.neurons.importance[-1] == pytest.approx(float(both.detach().square().sum()), rel=1e-5)


def test_l2p_follows_neurons_wherever_they_stand(model):
    places = torch.randperm(96, generator=torch.Generator().manual_seed(3)).tolist()
    moved = copy.deepcopy(model)
    adapter_of(moved).keep_neurons(moved, 1, places)
    before, after = l2p(model, [])[1].neurons, l2p(moved, [])[1].neurons
    assert tuple(places[place] for place in after.order) == before.order
    assert after.importance == before.importance


def test_l2p_is_the_norm_of_both_vectors_of_a_neuron(model):
    layer = adapter_of(model).layers(model)[2]
    ranking = l2p(model, [])[2].neurons
    both = torch.cat([layer.get(layer.ffn_in).weight, layer.get(layer.ffn_out).weight.T], 1)
    assert ranking.importance[5] == pytest.approx(float(both[ranking.order[5]].detach().norm()), rel=1e-5)


def test_activation_is_what_flows_out_over_real_tokens_alone(model):
    batch = batches(1)[0]
    batch.attention_mask[0, 4:] = 0
    seen = []
    layer = adapter_of(model).layers(model)[0]
    handle = layer.get(layer.ffn_out).register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    found = activation(model, [batch])[0].neurons
    handle.remove()
    means = [seen[0][row, : 4 if row == 0 else 6].abs().mean(0) for row in range(4)]
    expected = torch.stack(means).square().sum(0).sqrt()
    for place in (0, 50, 95):
        assert found.importance[place] == pytest.approx(float(expected[found.order[place]]), rel=1e-4)


def test_a_unit_that_never_fires_is_the_last(model):
    layer = adapter_of(model).layers(model)[1]
    with torch.no_grad():
        for path, rows in ((layer.value, slice(12, 24)), (layer.ffn_in, slice(17, 18))):
            layer.get(path).weight[rows] = 0
            layer.get(path).bias[rows] = 0
    found = activation(model, batches(2))[1]
    assert (found.heads.order[-1], found.heads.importance[-1]) == (1, 0.0)
    assert (found.neurons.order[-1], found.neurons.importance[-1]) == (17, 0.0)


def test_ordering_units_changes_no_output(model):
    before = logits(model)
    heads, neurons = by_score(torch.randn(4)), by_score(torch.randn(96))
    torch.testing.assert_close(logits(reorder(model, [LayerRanking(heads, neurons)] * 3)), before, atol=1e-5, rtol=1e-5)


def test_the_first_units_of_an_ordered_model_are_the_masked_model(model):
    """Slicing equals masking: what is cut off is what a mask of zeros would silence."""
    heads, neurons = by_score(torch.randn(4)), by_score(torch.randn(96))
    masked, sliced = copy.deepcopy(model), reorder(copy.deepcopy(model), [LayerRanking(heads, neurons)] * 3)
    adapter = adapter_of(model)
    for index, layer in enumerate(adapter.layers(masked)):
        adapter.keep_heads(sliced, index, range(3))
        adapter.keep_neurons(sliced, index, range(40))
        with torch.no_grad():
            gone = heads.order[3]
            layer.get(layer.output).weight[:, 12 * gone : 12 * gone + 12] = 0
            layer.get(layer.ffn_out).weight[:, list(neurons.order[40:])] = 0
    torch.testing.assert_close(logits(sliced), logits(masked), atol=1e-5, rtol=1e-5)
