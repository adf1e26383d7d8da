import torch

from autocompress.compression.recipes.widening import widening


def test_channels_that_correspond_are_passed_on_as_they_are():
    x = torch.randn(5, 4)
    torch.testing.assert_close(widening([x], [torch.randn(5, 4)], equal=True)(x), x)


def test_a_linear_relation_between_narrow_and_wide_channels_is_found():
    x, truth, bias = torch.randn(400, 3), torch.randn(5, 3), torch.randn(5)
    y = x @ truth.T + bias
    found = widening([x[:150], x[150:]], [y[:150], y[150:]], equal=False)
    torch.testing.assert_close(found(x), y, rtol=0.01, atol=0.02)


def test_fewer_rows_than_channels_give_a_map_all_the_same():
    assert torch.isfinite(widening([torch.zeros(2, 8)], [torch.randn(2, 16)], equal=False).weight).all()
