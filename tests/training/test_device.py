import pytest
import torch
from torch import nn

from autocompress.errors import ConfigError
from autocompress.training import device
from autocompress.training.device import best_device, device_of, full_precision, mixed_precision, placed
from autocompress.training.loop import cross_entropy, logits_of, train
from tests.conftest import tiny_model
from tests.training.test_loop import learnable_batches

CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.fixture
def there(monkeypatch):
    """Say which GPUs torch finds."""

    def find(*kinds):
        for kind in ("cuda", "mps"):
            monkeypatch.setattr(getattr(torch, kind), "is_available", lambda kind=kind: kind in kinds)

    return find


@pytest.mark.parametrize(("kinds", "best"), [((), "cpu"), (("mps",), "mps"), (("cuda",), "cuda")])
def test_a_gpu_is_taken_where_there_is_one(there, kinds, best):
    there(*kinds)
    assert best_device() == torch.device(best)
    assert best_device("cpu") == CPU


@pytest.mark.parametrize(("asked", "kinds"), [("cuda", ()), ("mps", ("cuda",))])
def test_a_device_that_is_not_there_is_refused_with_what_is(there, asked, kinds):
    there(*kinds)
    with pytest.raises(ConfigError, match=f"training_device is {asked}") as caught:
        best_device(asked)
    assert all(kind in caught.value.right for kind in (*kinds, "cpu"))


def test_models_are_moved_and_come_back_after_an_error_too():
    one, other = nn.Linear(2, 2), nn.Linear(2, 2, device=META)
    with pytest.raises(RuntimeError, match="meta"), placed(META, other):  # Nothing comes back from there.
        assert device_of(other) == META
        with placed(CPU, one):
            assert device_of(one) == CPU
        raise RuntimeError("meta")
    weight = one.weight
    with placed(CPU, one):
        pass
    assert one.weight is weight


def test_products_are_bfloat16_on_devices_that_are_faster_at_it_alone(monkeypatch):
    linear, rows = nn.Linear(4, 4), torch.ones(2, 4)
    with mixed_precision(CPU):
        assert linear(rows).dtype == torch.float32
    monkeypatch.setattr(device, "MIXED", {"cpu"})
    with mixed_precision(CPU):
        assert linear(rows).dtype == torch.bfloat16
        with full_precision(CPU):
            assert linear(rows).dtype == torch.float32


def test_what_a_loss_reads_is_f32_and_a_training_can_do_without_bfloat16(monkeypatch):
    monkeypatch.setattr(device, "MIXED", {"cpu"})
    seen = []

    def loss(model, batch):
        inner = model.base_model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        seen.append((model.classifier(inner).dtype, logits_of(model, batch.inputs).dtype))
        return cross_entropy(model, batch)

    for mixed in (True, False):
        train(tiny_model("bert"), learnable_batches(1), loss, learning_rate=1e-3, steps=1, mixed=mixed)
    assert seen == [(torch.bfloat16, torch.float32), (torch.float32, torch.float32)]


def test_a_model_in_double_precision_stays_so():
    model, (batch,) = tiny_model("bert").double(), learnable_batches(1)
    assert logits_of(model, batch.inputs).dtype == torch.float64
