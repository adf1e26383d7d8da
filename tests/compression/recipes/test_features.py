import torch

from autocompress.compression.recipes.features import Feature, observe
from tests.compression.training_data import batches
from tests.conftest import tiny_model


def test_hidden_features_are_the_hidden_states_that_the_model_itself_returns(family):
    model = tiny_model(family).eval()
    batch = next(iter(batches(1, 0)))
    wanted = [Feature("hidden", layer) for layer in range(4)]
    found = observe(model, batch, wanted)
    output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True)
    torch.testing.assert_close(found.logits, output.logits)
    for feature, expected in zip(wanted, output.hidden_states, strict=True):
        torch.testing.assert_close(found.features[feature], expected)


def test_queries_and_keys_give_the_attention_that_the_model_itself_returns(family):
    model = tiny_model(family).eval()
    model.set_attn_implementation("eager")
    batch = next(iter(batches(1, 0)))
    found = observe(model, batch, [Feature("query", 2), Feature("key", 2)]).features
    q, k = (found[Feature(kind, 2)].unflatten(-1, (4, 12)).transpose(1, 2) for kind in ("query", "key"))
    scores = q @ k.transpose(-1, -2) / 12**0.5
    shares = scores.masked_fill(batch.attention_mask[:, None, None, :] == 0, -torch.inf).softmax(-1)
    output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_attentions=True)
    torch.testing.assert_close(shares, output.attentions[1], rtol=1e-4, atol=1e-5)


def test_hooks_are_taken_off_again_and_gradients_reach_what_comes_before():
    model = tiny_model("bert")
    batch = next(iter(batches(1, 0)))
    observe(model, batch, [Feature("hidden", 1)]).features[Feature("hidden", 1)].sum().backward()
    assert model.bert.encoder.layer[0].output.dense.weight.grad is not None
    assert model.bert.encoder.layer[1].output.dense.weight.grad is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
