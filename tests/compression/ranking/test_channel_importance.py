import torch

from autocompress.compression.ranking.channel_importance import ChannelScores, channel_scores, order_hidden
from autocompress.models.load import adapter_of
from tests.compression.ranking.test_layer_importance import logits, padded


def test_scores_are_the_formula_over_real_tokens(model):
    adapter, totals = adapter_of(model), []
    for norm in adapter.hidden_norms(model):
        outputs: list[torch.Tensor] = []
        hook = norm.register_forward_hook(lambda _module, _inputs, output, kept=outputs: kept.append(output.double()))
        logits(model, padded())
        hook.remove()
        lengths = torch.cat([batch.attention_mask.sum(1) for batch in padded()]).tolist()
        sequences = torch.cat(outputs)
        assert len(sequences) == len(lengths) == 8 and {4, 6} == set(lengths)
        means = [sequence[:length].abs().mean(0) for sequence, length in zip(sequences, lengths, strict=True)]
        totals.append(torch.stack(means).square().sum(0).sqrt())
    assert len(totals) == 6 + (model.config.model_type != "electra")
    torch.testing.assert_close(channel_scores(model, padded()).channels.double(), sum(totals), rtol=1e-5, atol=1e-6)


def test_a_channel_that_every_norm_silences_scores_zero_and_no_other(model):
    with torch.no_grad():
        for norm in adapter_of(model).hidden_norms(model):
            norm.weight[7] = norm.bias[7] = 0
    assert channel_scores(model, padded()).channels.eq(0).nonzero().flatten().tolist() == [7]


def test_a_unit_that_moves_all_logits_alike_scores_zero(model):
    before = channel_scores(model, padded()).units
    best = int(before.argmax())
    with torch.no_grad():
        adapter_of(model).classifier_linear(model).weight[:, best] = 3.0
    after = channel_scores(model, padded()).units
    assert float(before[best]) > 0 and float(after[best]) == 0
    others = torch.arange(48) != best
    torch.testing.assert_close(after[others], before[others])


def test_units_are_scored_by_what_they_add_to_differences_of_logits(model):
    linear, seen = adapter_of(model).classifier_linear(model), []
    hook = linear.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    logits(model, padded())
    hook.remove()
    activations, weight = torch.cat(seen).double(), linear.weight.detach().double()
    added = activations[:, :, None] * (weight - weight.mean(0)).T
    expected = added.square().sum((0, 2)).sqrt()
    torch.testing.assert_close(channel_scores(model, padded()).units.double(), expected, rtol=1e-5, atol=1e-7)


def test_ordering_changes_no_output_and_permutes_the_scores(model):
    before, scores = logits(model, padded()), channel_scores(model, padded())
    order_hidden(model, scores)
    torch.testing.assert_close(logits(model, padded()), before, rtol=1e-5, atol=1e-5)
    after = channel_scores(model, padded())
    torch.testing.assert_close(after.channels, scores.channels.sort(descending=True).values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after.units, scores.units.sort(descending=True).values, rtol=1e-4, atol=1e-5)


def test_any_order_of_channels_and_any_other_of_units_changes_no_output(model):
    before, shape = logits(model, padded()), adapter_of(model).shape(model)
    generator = torch.Generator().manual_seed(5)
    order_hidden(model, ChannelScores(*(torch.rand(48, generator=generator) for _ in range(2))))
    torch.testing.assert_close(logits(model, padded()), before, rtol=1e-5, atol=1e-5)
    assert adapter_of(model).shape(model) == shape


def test_equal_scores_keep_their_order(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    order_hidden(model, ChannelScores(torch.zeros(48), torch.zeros(48)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_hooks_are_taken_off_again(model):
    channel_scores(model, padded())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
