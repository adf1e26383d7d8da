import numpy as np
import pytest
import torch

from autocompress.models.load import adapter_of
from autocompress.models.selecting import most_significant, received
from tests.compiler.numpy_graph import reference
from tests.conftest import tiny_model

IDS = torch.randint(2, 60, (4, 12), generator=torch.Generator().manual_seed(3))
MASK = (torch.arange(12) < torch.tensor([12, 3, 8, 1])[:, None]).long()


def logits(model, ids=IDS, mask=MASK):
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=mask).logits.numpy()


@pytest.mark.parametrize("most", [(9, 5, 1), (0, 4, 0), (1, 1, 1), (6, 6, 6), (0, 0, 1)])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_family_selects_tokens_as_the_graph_in_float64_does(family, most, attention):
    model = tiny_model(family)
    model.set_attn_implementation(attention)
    adapter = adapter_of(model)
    adapter.select_tokens(model, most)
    shape = adapter.shape(model)
    assert tuple(layer.most_tokens for layer in shape.layers) == most
    expected = reference(shape, adapter.weights(model), IDS.numpy(), MASK.numpy())
    np.testing.assert_allclose(logits(model), expected, atol=2e-5 * np.ptp(expected))


def test_a_last_layer_that_passes_on_the_first_token_alone_loses_nothing(family):
    model = tiny_model(family)
    before = logits(model)
    adapter_of(model).select_tokens(model, (0, 0, 1))
    np.testing.assert_allclose(logits(model), before, atol=1e-5 * np.ptp(before))


def test_padding_decides_nothing(family):
    model = tiny_model(family)
    adapter_of(model).select_tokens(model, (7, 4, 1))
    padded = torch.nn.functional.pad(IDS, (0, 9), value=1), torch.nn.functional.pad(MASK, (0, 9))
    np.testing.assert_allclose(logits(model, *padded), logits(model), atol=2e-5)


def test_a_document_shorter_than_every_count_is_read_whole():
    model = tiny_model("bert")
    short = IDS[:1, :5], torch.ones(1, 5, dtype=torch.int64)
    before = logits(model, *short)
    adapter_of(model).select_tokens(model, (9, 6, 5))
    assert (logits(model, *short) == before).all()


def test_layers_that_go_take_their_counts_along():
    model = tiny_model("bert")
    adapter_of(model).select_tokens(model, (9, 5, 1))
    adapter_of(model).keep_layers(model, [0, 2])
    assert [layer.most_tokens for layer in adapter_of(model).shape(model).layers] == [9, 1]
    assert logits(model).shape == (4, 3)


def test_significance_is_what_real_tokens_give_to_others():
    shares = torch.tensor([[[[0.5, 0.2, 0.3], [0.1, 0.6, 0.3], [0.9, 0.05, 0.05]]]])
    real = torch.tensor([[True, True, False]])
    # Token 2 is padding: what it looks at does not count; 0 gets what 1 gives, 1 what 0 gives.
    torch.testing.assert_close(received(shares, real), torch.tensor([[0.1, 0.2, 0.6]]))


def test_the_first_token_comes_first_and_of_equals_the_one_before():
    significance = torch.tensor([[0.0, 0.3, 0.7, 0.3, 0.9]])
    real = torch.tensor([[True, True, True, True, False]])
    assert most_significant(significance, real, 5).tolist() == [[0, 2, 1, 3, 4]]
    assert most_significant(significance, real, 2).tolist() == [[0, 2]]
