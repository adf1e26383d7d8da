from dataclasses import replace

import pytest
import torch

from autocompress.compression.ranking.fisher import _greedy, block_fisher, fisher, mask_gradients, taylor
from autocompress.errors import ConfigError
from autocompress.models.load import adapter_of
from tests.compression.training_data import batches
from tests.conftest import tiny_model


@pytest.mark.parametrize("criterion", [taylor, fisher, block_fisher])
def test_a_unit_without_influence_is_removed_first(model, criterion):
    layer = adapter_of(model).layers(model)[1]
    with torch.no_grad():
        layer.get(layer.output).weight[:, 12:24] = 0
        layer.get(layer.ffn_out).weight[:, 17] = 0
    found = criterion(model, batches(2))[1]
    assert (found.heads.order[-1], found.heads.importance[-1]) == (1, 0.0)
    assert (found.neurons.order[-1], found.neurons.importance[-1]) == (17, 0.0)
    assert found.heads.importance[0] > 0


def test_a_mask_gradient_is_the_slope_of_the_documents_own_loss(model):
    batch, layer, step = batches(1)[0], adapter_of(model).layers(model)[0], 1e-2
    found = mask_gradients(model, [batch])[0].neurons[:, 3]
    linear = layer.get(layer.ffn_out)

    def losses(scale: float) -> torch.Tensor:
        with torch.no_grad():
            linear.weight[:, 3] *= scale
            logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            linear.weight[:, 3] /= scale
        return torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none")

    slope = (losses(1 + step) - losses(1 - step)) / (2 * step)
    torch.testing.assert_close(found, slope, rtol=0.05, atol=1e-5)


def test_a_batchs_gradient_is_the_mean_of_its_documents(model):
    documents, whole = (mask_gradients(model, batches(2), each=each)[2] for each in ("document", "batch"))
    torch.testing.assert_close(whole.heads, documents.heads.reshape(2, 4, -1).mean(1))
    torch.testing.assert_close(whole.neurons, documents.neurons.reshape(2, 4, -1).mean(1))


def test_scores_are_what_their_formulas_say(model):
    documents, whole = (mask_gradients(model, batches(2), each=each)[0].neurons for each in ("document", "batch"))
    for criterion, scores in ((taylor, documents.abs().mean(0)), (fisher, whole.square().sum(0))):
        found = criterion(model, batches(2))[0].neurons
        assert found.importance == tuple(scores[list(found.order)].tolist())
        assert list(found.importance) == sorted(found.importance, reverse=True)


def test_units_that_cancel_go_together():
    """Alone the third is the cheapest, but the first two undo each other: |g0 + g1| = 0.1 < |g2|."""
    gradients = torch.tensor([[1.0, -1.1, 1.05], [0.0, 0.0, 1.0]])
    found = _greedy(gradients)
    assert found.order == (2, 1, 0)
    assert found.importance[1:] == (1.0, 1.0)  # removing the first costs 1; the second then costs less than nothing


def test_hooks_are_taken_off_again(model):
    mask_gradients(model, batches(1))
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("criterion", [taylor, fisher, block_fisher])
def test_documents_without_labels_are_refused(criterion):
    with pytest.raises(ConfigError, match="no labels") as caught:
        criterion(tiny_model("bert"), [replace(batches(1)[0], labels=None)])
    assert caught.value.right and "obs" in caught.value.next_step
