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
        LayerSensitivity(*({32: 0.0, 8: nats / 100, 4: nats / 4, 3: nats / 2, 2: nats} for nats in by_block(*pair)))
        for pair in layers
    )


def weights(layer):
    return 3 * 32 * layer.attention, 32 * layer.attention, 32 * layer.ffn, 32 * layer.ffn


def stored(*groups):
    return sum(
        bits_in_memory(width) * weights(layer)[group]
        for group, widths in enumerate(groups)
        for layer, width in zip(SHAPE.layers, widths, strict=True)
    )


def nats(found, sensitivity):
    return sum(
        each.groups[group][width]
        for group, widths in enumerate(found)
        for each, width in zip(sensitivity, widths, strict=True)
    )


@pytest.mark.parametrize("group", range(4))
def test_a_group_is_as_sensitive_as_the_logits_of_a_model_in_which_it_alone_is_rounded(group):
    model = tiny_model("bert")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = sensitivities(model, batches(2), attention_bits=(32, 4), ffn_bits=(8, 2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [[set(group) for group in layer.groups] for layer in found] == [[{32, 4}, {32, 4}, {8, 2}, {8, 2}]] * 3

    fewer = [(32,) * 3] * 4
    fewer[group] = (32, 2 if group > 1 else 4, 32)
    alone = apply(tiny_model("bert"), QuantizeStep(*fewer, 32), context_for(model))
    with torch.no_grad():
        teacher, student = (
            torch.cat([net(b.input_ids, b.attention_mask).logits for b in batches(2)]).double().log_softmax(-1)
            for net in (model, alone)
        )
    expected = functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
    assert found[1].groups[group][fewer[group][1]] == pytest.approx(float(expected), rel=1e-3)
    assert found[1].attention_in[32] == 0.0


@pytest.mark.parametrize("bits", [(8, 8), (8, 4), (4, 4), (3, 3), (4, 2), (2, 2), (32, 8)])
@pytest.mark.parametrize("sensitivity", [
    sensitivity_of((1.0, 0.1), (0.01, 0.5), (0.2, 0.2)), sensitivity_of((0, 0), (1, 1), (2, 3)),
    sensitivity_of((0.3, 0.3), (0.3, 0.3), (0.3, 0.3)),
])  # fmt: skip
def test_shared_bits_take_no_more_bytes_than_equal_ones_and_are_near_the_best_there_is(bits, sensitivity):
    equal = tuple((width,) * 3 for width in by_block(*bits))
    found = share_bits(SHAPE, sensitivity, *bits)
    assert stored(*found) <= stored(*equal)
    assert nats(found, sensitivity) <= nats(equal, sensitivity) + 1e-12
    # Groups of one block may differ: the best of plans in which they do not is no better than the best there is.
    every = (by_block(c[:3], c[3:]) for c in product(WIDTHS, repeat=6))
    best = min(nats(each, sensitivity) for each in every if stored(*each) <= stored(*equal))
    worst_part = max(max(group[2] for group in each.groups) for each in sensitivity)
    assert nats(found, sensitivity) <= best + 0.75 * worst_part


def test_what_matters_most_gets_most_bits():
    (first, *_), (out, *_), *ffn = share_bits(SHAPE, sensitivity_of((5.0, 0.1), (0.1, 0.1), (0.1, 0.1)), 4, 4)
    assert first == out == 8
    assert min(*ffn[0], *ffn[1]) < 4


def test_groups_of_one_block_may_have_bits_of_their_own():
    flat, steep = {8: 0.0, 4: 0.1, 2: 0.2}, {8: 0.0, 4: 5.0, 2: 9.0}
    sensitivity = (LayerSensitivity(flat, steep, flat, flat),) * 3
    inward, outward, *_ = share_bits(SHAPE, sensitivity, 4, 4)
    assert outward == (8, 8, 8)
    assert min(inward) < 8


def test_a_plan_shares_bits_among_the_layers_that_are_left():
    model = tiny_model("bert")
    shape = adapter_of(model).shape(model)
    space = Space(depth=(2,), attention_bits=(4, 8, 2), ffn_bits=(4, 8, 2), bits_allocation=("global",))

    def drawn(space):
        (step,) = (step for step in draw(FirstChoice(), shape, space).steps if step.method == "quantize")
        return step

    uniform = drawn(space)
    assert set(uniform.layers) == {(4, 4, 4, 4)}
    flat = {8: 0.0, 4: 0.0, 2: 0.0}
    tender = replace(LayerSensitivity(flat, flat, flat, flat), attention_in={8: 0.0, 4: 1.0, 2: 4.0})

    def shared(at):
        layers = tuple(tender if layer == at else LayerSensitivity(flat, flat, flat, flat) for layer in range(3))
        return drawn(replace(space, sensitivity=layers))

    assert shared(0).attention_in_bits[0] == 8
    assert shared(2).attention_in_bits[1] == 8
    assert shared(1) == shared(None)  # Layers 0 and 2 stay.


@pytest.mark.parametrize("bits", [(4, 4), (3, 3), (8, 3), (3, 2)])
def test_a_width_that_the_engine_stores_as_a_wider_one_is_not_taken_to_save_bytes(bits):
    sensitivity = sensitivity_of((1.0, 0.1), (0.01, 0.5), (0.2, 0.2))
    found = share_bits(SHAPE, sensitivity, *bits, {3: 4})
    assert all(3 not in group for group in found)  # Four bits are better, in as many bytes.
    assert stored(*found) <= stored(*(({3: 4}.get(width, width),) * 3 for width in by_block(*bits)))
    assert nats(found, sensitivity) <= nats(tuple((width,) * 3 for width in by_block(*bits)), sensitivity)
