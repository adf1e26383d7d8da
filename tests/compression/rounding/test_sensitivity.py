from dataclasses import replace
from itertools import product

import pytest
import torch
from torch.nn import functional

from autocompress.compression.method import LayerSensitivity, Space
from autocompress.compression.methods import draw
from autocompress.compression.quantization import QuantizeStep, apply
from autocompress.compression.rounding.sensitivity import bits_in_memory, sensitivities, share_bits
from autocompress.models.load import adapter_of
from autocompress.shape import LayerShape, ModelShape, by_block
from tests.compression.training_data import batches, context_for
from tests.conftest import tiny_model
from tests.contracts.test_methods import FirstChoice

SHAPE = ModelShape("bert", 60, 40, 32, 32, (LayerShape(2, 16, 64), LayerShape(2, 16, 64), LayerShape(1, 16, 32)), 3)
WIDTHS = (32, 8, 4, 3, 2)


def sensitivity_of(*layers):
    """Nats of attention and of the feed-forward block at 2 bits; half at 3, a quarter at 4, next to nothing at 8."""
    return tuple(
        LayerSensitivity(*({32: 0.0, 8: nats / 100, 4: nats / 4, 3: nats / 2, 2: nats} for nats in pair))
        for pair in layers
    )


def stored(attention, ffn):
    pairs = zip(SHAPE.layers, attention, ffn, strict=True)
    return sum(
        bits_in_memory(a) * 4 * 32 * layer.attention + bits_in_memory(f) * 2 * 32 * layer.ffn for layer, a, f in pairs
    )


def nats(found, sensitivity):
    return sum(each.attention[a] + each.ffn[f] for each, a, f in zip(sensitivity, *found, strict=True))


def test_a_part_is_as_sensitive_as_the_logits_of_a_model_in_which_it_alone_is_rounded():
    model = tiny_model("bert")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = sensitivities(model, batches(2), attention_bits=(32, 4), ffn_bits=(8, 2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [set(layer.attention) for layer in found] == [{32, 4}] * 3

    alone = apply(tiny_model("bert"), QuantizeStep(*by_block((32, 4, 32), (32, 32, 32)), 32), context_for(model))
    with torch.no_grad():
        teacher, student = (
            torch.cat([net(b.input_ids, b.attention_mask).logits for b in batches(2)]).double().log_softmax(-1)
            for net in (model, alone)
        )
    expected = functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
    assert found[1].attention[4] == pytest.approx(float(expected), rel=1e-3)
    assert found[1].attention[32] == 0.0


@pytest.mark.parametrize("bits", [(8, 8), (8, 4), (4, 4), (3, 3), (4, 2), (2, 2), (32, 8)])
@pytest.mark.parametrize("sensitivity", [
    sensitivity_of((1.0, 0.1), (0.01, 0.5), (0.2, 0.2)), sensitivity_of((0, 0), (1, 1), (2, 3)),
    sensitivity_of((0.3, 0.3), (0.3, 0.3), (0.3, 0.3)),
])  # fmt: skip
def test_shared_bits_take_no_more_bytes_than_equal_ones_and_are_near_the_best_there_is(bits, sensitivity):
    equal = tuple((width,) * 3 for width in bits)
    found = share_bits(SHAPE, sensitivity, *bits)
    assert stored(*found) <= stored(*equal)
    assert nats(found, sensitivity) <= nats(equal, sensitivity) + 1e-12
    every = product(WIDTHS, repeat=6)
    best = min(nats((c[:3], c[3:]), sensitivity) for c in every if stored(c[:3], c[3:]) <= stored(*equal))
    worst_part = max(max(each.attention[2], each.ffn[2]) for each in sensitivity)
    assert nats(found, sensitivity) <= best + 0.75 * worst_part


def test_what_matters_most_gets_most_bits():
    (first, *_), ffn = share_bits(SHAPE, sensitivity_of((5.0, 0.1), (0.1, 0.1), (0.1, 0.1)), 4, 4)
    assert first == 8
    assert min(ffn) < 4


def test_a_plan_shares_bits_among_the_layers_that_are_left():
    model = tiny_model("bert")
    shape = adapter_of(model).shape(model)
    space = Space(depth=(2,), attention_bits=(4, 8, 2), ffn_bits=(4, 8, 2), bits_allocation=("global",))

    def drawn(space):
        (step,) = (step for step in draw(FirstChoice(), shape, space).steps if step.method == "quantize")
        return step

    uniform = drawn(space)
    assert uniform.attention_bits == uniform.ffn_bits == (4, 4)
    flat = {8: 0.0, 4: 0.0, 2: 0.0}
    tender = replace(LayerSensitivity(flat, flat), attention={8: 0.0, 4: 1.0, 2: 4.0})

    def shared(at):
        layers = tuple(tender if layer == at else LayerSensitivity(flat, flat) for layer in range(3))
        return drawn(replace(space, sensitivity=layers))

    assert shared(0).attention_bits[0] == 8
    assert shared(2).attention_bits[1] == 8
    assert shared(1) == shared(None)  # Layers 0 and 2 stay.


@pytest.mark.parametrize("bits", [(4, 4), (3, 3), (8, 3), (3, 2)])
def test_a_width_that_the_engine_stores_as_a_wider_one_is_not_taken_to_save_bytes(bits):
    sensitivity = sensitivity_of((1.0, 0.1), (0.01, 0.5), (0.2, 0.2))
    found = share_bits(SHAPE, sensitivity, *bits, {3: 4})
    assert 3 not in (*found[0], *found[1])  # Four bits are better, in as many bytes.
    assert stored(*found) <= stored(*(({3: 4}.get(width, width),) * 3 for width in bits))
    assert nats(found, sensitivity) <= nats(tuple((width,) * 3 for width in bits), sensitivity)
