from itertools import combinations

import pytest
import torch
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification

from autocompress.compression.depth import select
from autocompress.compression.ranking.layer_importance import (
    ORDERS,
    block_influence,
    divergence,
    replace_one_order,
    with_layers,
)
from autocompress.models.load import adapter_of
from tests.compression.training_data import Batch, batches
from tests.conftest import COMMON, WIDTHS


def padded() -> list[Batch]:
    """Two batches whose second half of sequences ends in padding."""
    found = batches(2)
    for batch in found:
        batch.attention_mask[2:, 4:] = 0
    return found


def logits(model, some) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(input_ids=b.input_ids, attention_mask=b.attention_mask).logits for b in some])


def make_identity(model, index) -> None:
    """Let a layer add nothing to a stream that is normalized already, so that its norms change nothing either."""
    layers = adapter_of(model).layers(model)
    layer, before = layers[index], layers[index - 1]
    with torch.no_grad():
        for path in (layer.output, layer.ffn_out):
            layer.get(path).weight.zero_()
            layer.get(path).bias.zero_()
        for norm in (before.get(before.ffn_norm), layer.get(layer.attention_norm), layer.get(layer.ffn_norm)):
            norm.weight.fill_(1.0)
            norm.bias.zero_()


def deep_model(layers: int, seed: int = 0) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    model = BertForSequenceClassification(BertConfig(**{**WIDTHS, "num_hidden_layers": layers}, **COMMON)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(4.0) if parameter.dim() == 2 else parameter.add_(torch.randn_like(parameter) * 0.1)
            if "layer.2." in name and "dense" in name:
                parameter.mul_(0.1)  # One layer that does little.
    return model


def test_a_layer_that_changes_nothing_has_no_influence_and_goes_first(model):
    make_identity(model, 1)
    influence = block_influence(model, padded())
    assert float(influence[1]) == pytest.approx(0, abs=1e-6)
    assert (influence[[0, 2]] > 1e-3).all()
    assert [order(model, padded())[0] for order in ORDERS.values()] == [1, 1]


def test_influence_is_one_minus_the_mean_cosine_over_real_tokens(model):
    total, count = torch.zeros(3), 0
    for batch in padded():
        with torch.no_grad():
            output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True)
        for row, column in batch.attention_mask.nonzero().tolist():
            tokens = [state[row, column] for state in output.hidden_states]
            total += torch.stack([1 - a @ b / (a.norm() * b.norm()) for a, b in zip(tokens, tokens[1:], strict=False)])
            count += 1
    assert count == 2 * (2 * 6 + 2 * 4)
    torch.testing.assert_close(block_influence(model, padded()).float(), total / count, rtol=1e-4, atol=1e-6)


def test_divergence_is_the_mean_over_examples():
    teacher, student = torch.randn(5, 3), torch.randn(5, 3)
    p, q = functional.softmax(teacher.double(), -1), functional.softmax(student.double(), -1)
    assert divergence(teacher, student) == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-9)
    assert divergence(teacher, teacher) == 0


def test_a_model_of_fewer_layers_shares_weights_and_leaves_the_teacher_alone(model):
    before = logits(model, padded())
    smaller = with_layers(model, [0, 2])
    layers, kept = (adapter_of(each).layers(each) for each in (model, smaller))
    assert [layer.get(layer.ffn_in).weight.data_ptr() for layer in kept] == [
        layers[index].get(layers[index].ffn_in).weight.data_ptr() for index in (0, 2)
    ]
    assert torch.equal(logits(model, padded()), before)
    adapter_of(model).keep_layers(model, [0, 2])
    assert torch.equal(logits(smaller, padded()), logits(model, padded()))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_layer_that_goes_is_the_best_of_those_left_and_beats_the_uniform_map(seed):
    model, some = deep_model(5, seed), padded()
    teacher, order = logits(model, some), replace_one_order(model, some)

    def moved(kept) -> float:
        return divergence(teacher, logits(with_layers(model, kept), some))

    assert sorted(order) == list(range(5))
    for keep in (4, 3, 2, 1):
        kept, before = (select("replace_one", 5, count, {"replace_one": order}) for count in (keep, keep + 1))
        assert moved(kept) == min(moved(some_left) for some_left in combinations(before, keep))
    best = select("replace_one", 5, 4, {"replace_one": order})
    assert moved(best) <= moved(select("uniform", 5, 4, {}))


@pytest.mark.parametrize("selection", ORDERS)
def test_an_order_is_the_same_each_time_and_of_a_model_that_is_put_back(model, selection):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, second = (ORDERS[selection](model, padded()) for _ in range(2))
    assert first == second and sorted(first) == [0, 1, 2]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
