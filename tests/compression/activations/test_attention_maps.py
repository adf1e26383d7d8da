import pytest
import torch

from autocompress.compression.activations.affine import Affine
from autocompress.compression.activations.attention_maps import AttentionMap, least_error, squared_error, tops
from autocompress.errors import ConfigError


def levels(step):
    return Affine(8, torch.tensor([step]), torch.zeros(1))


def test_errors_are_of_what_attention_hands_on_where_values_are_known():
    torch.manual_seed(0)
    a, v = torch.softmax(torch.randn(2, 3, 5, 5), -1), torch.randn(2, 3, 5, 4)
    change = torch.round(a / 0.1) * 0.1 - a
    assert squared_error(levels(0.1), [AttentionMap(a)]) == pytest.approx(float(change.square().sum()), rel=1e-4)
    both = squared_error(levels(0.1), [AttentionMap(a, v), AttentionMap(a, v)])
    assert both == pytest.approx(2 * float((change @ v).square().sum()), rel=1e-4)


def test_values_decide_which_quantizer_is_best():
    a = torch.tensor([[0.05, 0.95]])
    coarse_is_exact_in_first, in_second = levels(0.05 / 3), levels(0.95 / 11)
    for v, best in (
        (torch.diag(torch.tensor([1.0, 0.0])), coarse_is_exact_in_first),
        (torch.diag(torch.tensor([0.0, 1.0])), in_second),
    ):
        assert least_error([in_second, coarse_is_exact_in_first], [AttentionMap(a, v)]) is best


def test_tops_are_quantiles_of_all_maps_without_repetitions():
    ramp = torch.arange(1, 1001) / 1000
    found = tops([AttentionMap(ramp[:500]), AttentionMap(ramp[500:])])
    # Quantile q of 1000 values lies at position 999 q, between two of them.
    assert found == pytest.approx([(1 + 999 * q) / 1000 for q in (1.0, 0.99999, 0.9999, 0.999)])
    assert tops([AttentionMap(torch.ones(10))]) == (1.0,)


@pytest.mark.parametrize("entries", [[], [[0.0, 0.0]], [[0.5, 1.5]], [[-0.1, 0.5]]])
def test_what_is_no_probability_is_refused(entries):
    with pytest.raises(ConfigError, match="no probabilities"):
        tops([AttentionMap(torch.tensor(row)) for row in entries])
