import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from autocompress.compression.ranking.curvature import curvatures
from autocompress.compression.ranking.obs import COMPACT, damped, kron_obs, obs, remove
from autocompress.models.load import adapter_of
from autocompress.training.batches import TokenBatch
from tests.compression.training_data import batches
from tests.conftest import tiny_model


def problem(outputs=5, inputs=24, tokens=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(inputs, inputs, generator=generator, dtype=torch.float64)
    x = torch.randn(tokens, inputs, generator=generator, dtype=torch.float64) @ mixing
    return torch.randn(outputs, inputs, generator=generator, dtype=torch.float64), damped(2.0 * x.T @ x / tokens)


def error(weight, dense, hessian):
    change = weight - dense
    return float((change @ hessian * change).sum())


@pytest.mark.parametrize(("width", "count"), [(1, 9), (4, 3), (1, 23)])
def test_removal_with_compensation_is_the_least_squares_fit_of_the_kept_columns(width, count):
    dense, hessian = problem()
    found = remove(dense, hessian, width=width, count=count)
    kept = np.setdiff1d(np.arange(24 // width), found.removed)
    channels = torch.from_numpy((kept[:, None] * width + np.arange(width)).reshape(-1))
    expected = torch.zeros_like(dense)
    expected[:, channels] = (dense @ hessian)[:, channels] @ torch.linalg.inv(hessian[channels][:, channels])
    torch.testing.assert_close(found.weight, expected, rtol=1e-8, atol=1e-9)


def test_costs_add_up_to_the_error_at_every_step():
    dense, hessian = problem()
    found = remove(dense, hessian)
    assert min(found.costs) >= 0
    for count in (1, 5, 16, 24):
        left = remove(dense, hessian, count=count)
        assert left.removed == found.removed[:count]  # nested
        assert error(left.weight, dense, hessian) == pytest.approx(sum(found.costs[:count]), rel=1e-8)


def test_cutting_the_inverse_down_changes_nothing():
    dense, hessian = problem(inputs=COMPACT + 40, tokens=300)
    count = COMPACT + 20
    found = remove(dense, hessian, count=count)
    kept = torch.tensor(sorted(set(range(COMPACT + 40)) - set(found.removed)))
    expected = (dense @ hessian)[:, kept] @ torch.linalg.inv(hessian[kept][:, kept])
    torch.testing.assert_close(found.weight[:, kept], expected, rtol=1e-7, atol=1e-8)
    assert len(set(found.removed)) == count


def test_the_first_to_go_is_the_one_that_trying_each_finds():
    dense, hessian = problem(seed=4)
    errors = []
    for unit in range(6):
        kept = torch.tensor([channel for channel in range(24) if channel // 4 != unit])
        weight = torch.zeros_like(dense)
        weight[:, kept] = (dense @ hessian)[:, kept] @ torch.linalg.inv(hessian[kept][:, kept])
        errors.append(error(weight, dense, hessian))
    assert remove(dense, hessian, width=4, count=1).removed == (int(np.argmin(errors)),)


def test_a_duplicated_column_costs_almost_nothing():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 10, generator=generator, dtype=torch.float64)
    x[:, 7] = x[:, 2]
    dense = torch.randn(4, 10, generator=generator, dtype=torch.float64)
    found = remove(dense, damped(2.0 * x.T @ x / 300, 1e-8), count=2)
    assert found.removed[0] in (2, 7)
    assert found.costs[0] < 1e-6 * found.costs[1]


def test_an_input_that_is_always_zero_goes_first():
    x = torch.randn(50, 6, dtype=torch.float64)
    x[:, 3] = 0
    hessian = damped(x.T @ x)
    assert torch.linalg.matrix_rank(hessian) == 6
    weight = torch.ones(2, 6)
    weight[:, 3] = 1e-3
    assert remove(weight, hessian, count=1).removed == (3,)


@pytest.mark.parametrize("criterion", [obs, kron_obs])
def test_units_whose_weights_are_zero_cost_nothing(model, criterion):
    layer = adapter_of(model).layers(model)[1]
    with torch.no_grad():
        layer.get(layer.output).weight[:, 12:24] = 0
        layer.get(layer.ffn_out).weight[:, 17] = 0
    found = criterion(model, batches(2))[1]
    assert (found.heads.order[-1], found.neurons.order[-1]) == (1, 17)
    assert found.heads.importance[-1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("criterion", [obs, kron_obs])
def test_rankings_are_the_same_twice_and_need_no_labels(criterion):
    model = tiny_model("bert")
    unlabelled = [TokenBatch(b.input_ids, b.attention_mask) for b in batches(2)]
    assert criterion(model, unlabelled) == criterion(model, batches(2))


def test_curvature_foresees_how_far_the_logits_move():
    """For a document of one token the factors are exact, up to the draw of signs v: E |v J E x|^2 is |J E x|^2."""
    model, batch = tiny_model("bert"), batches(1)[0]
    ids, mask = batch.input_ids[:1, :1], batch.attention_mask[:1, :1]
    one = TokenBatch(ids, mask)
    layer = adapter_of(model).layers(model)[2]
    linear = layer.get(layer.ffn_out)
    change = 1e-3 * torch.randn(linear.weight.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model(input_ids=ids, attention_mask=mask).logits
        linear.weight += change
        moved = model(input_ids=ids, attention_mask=mask).logits - before
        linear.weight -= change
    found = curvatures(model, [one] * 400)[5]
    foreseen = torch.trace(found.outputs @ change.double() @ found.inputs @ change.double().T)
    assert float(foreseen) == pytest.approx(float((moved - moved.mean()).square().sum()), rel=0.2)


def test_the_curvature_of_two_classes_has_no_negative_eigenvalues_though_it_is_nearly_of_rank_one():
    torch.manual_seed(0)
    config = BertConfig(vocab_size=60, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    model = BertForSequenceClassification(config).eval()
    for found in curvatures(model, batches(4)):
        assert torch.linalg.eigvalsh(found.outputs).min() > -1e-13
