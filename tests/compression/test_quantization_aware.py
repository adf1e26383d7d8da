import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.compression.quantization import QuantizeStep
from autocompress.compression.quantization import apply as quantize
from autocompress.compression.quantization_aware import (
    LEAST,
    WITHIN,
    LearnedModule,
    LearnedRounding,
    QuantizationAwareStep,
    apply,
    learning,
)
from autocompress.compression.recipes.features import Outputs
from autocompress.compression.recipes.teacher import TeacherOutputs
from autocompress.compression.rounding.grids import ends_of, grid_of, quantize_rows
from autocompress.models.load import adapter_of
from autocompress.models.quantized import QuantizedEmbedding, QuantizedLinear, StaticQuantizer
from autocompress.shape import BITS, WeightGrid, by_block, nearest_embedding_bits
from autocompress.training.loop import TrainingDivergedError
from tests.compression.training_data import batches, context_for
from tests.conftest import tiny_model

STEP = QuantizationAwareStep(12, 1e-3, seed=0)
WIDTHS = [bits for bits in BITS if bits != 32]
GROUPED = {"activations": "token", "weight_group": 64, "zero_points": True}


class Lost(TeacherOutputs):
    """A teacher whose answers are no numbers."""

    def __call__(self, batch, features=()):
        return Outputs(torch.full((4, 3), torch.nan), {})


def rounded(
    model: nn.Module, bits: int, rounding: str = "nearest", activations: str = "dynamic", **grid: object
) -> nn.Module:
    """Return a student of which the feed-forward linears stay at 8 bits."""
    table = nearest_embedding_bits(bits)
    step = QuantizeStep(
        *by_block((bits,) * 3, (8,) * 3), table, rounding, calibration_batches=2, activations=activations, **grid
    )
    return quantize(copy.deepcopy(model), step, context_for(model)).eval()


def outputs(model: nn.Module) -> torch.Tensor:
    batch = batches(1)[0]
    with torch.no_grad():
        return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits


def quantized(model: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in model.named_modules() if isinstance(m, QuantizedLinear | QuantizedEmbedding)}


@pytest.mark.parametrize("known", [True, False], ids=["from floats", "from levels"])
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("options", [{}, GROUPED], ids=["usual", "grouped"])
def test_training_starts_with_what_was_delivered_bit_by_bit(model, bits, known, options):
    student = rounded(model, bits, **options)
    before, state = outputs(student), copy.deepcopy(student.state_dict())
    with learning(student, model if known else None):
        learned = sum(isinstance(m, LearnedModule) for m in student.modules())
        assert learned == 3 * 6 + 1
        assert torch.equal(outputs(student), before)
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor.where(tensor.abs() > LEAST, 0), state[name].where(state[name].abs() > LEAST, 0)), name


def test_floats_behind_smoothed_levels_make_up_for_the_channels_as_these_do(model):
    student = rounded(model, 8, activations="smoothed")
    before = outputs(student)
    scales = {
        name: 1 / (module.quantizer.step * module.quantizer.inverse)
        for name, module in quantized(student).items()
        if isinstance(module, QuantizedLinear) and module.quantizer.inverse is not None
    }
    assert scales
    with learning(student, model):
        assert torch.equal(outputs(student), before)
        for name, scale in scales.items():
            learnt = student.get_submodule(name).rounding
            steps = learnt()["scale"].detach()[:, None]
            off = (learnt.weight.detach() - model.get_submodule(name).weight * scale).abs() / steps
            assert off.max() < 0.5 - WITHIN + 1e-3, name


def test_floats_are_behind_levels_that_are_nearest_to_them_and_other_levels_stand_for_themselves():
    model = tiny_model("bert")
    student = rounded(model, 2, "optq")
    path = "bert.encoder.layer.1.attention.output.dense"
    before, floats, linear = outputs(student), model.get_submodule(path).weight, student.get_submodule(path)
    steps = linear.scale.repeat_interleave(32, 1)[:, :48]
    ratio = (floats / steps).clamp(-2, 1)
    nearest = ratio.round() == linear.weight
    assert 0.05 < (~nearest).float().mean() < 0.95
    with learning(student, model):
        assert torch.equal(outputs(student), before)
        v = student.get_submodule(path).rounding.weight / steps
    expected = torch.where(nearest, ratio, linear.weight)
    torch.testing.assert_close(v, expected, rtol=0, atol=0.0011)


@pytest.mark.parametrize("bits", WIDTHS)
def test_a_trained_student_computes_what_it_computed_last_while_it_was_trained(model, bits, monkeypatch):
    student, last = rounded(model, bits), []
    delivered = LearnedModule.delivered

    def watched(module):
        if not last:  # All parts still learn when the first is put back.
            last.append(outputs(student))
        return delivered(module)

    monkeypatch.setattr(LearnedModule, "delivered", watched)
    before, shape = outputs(student), adapter_of(student).shape(student)
    context = replace(context_for(model), unrounded=model)
    apply(student, STEP, context)
    student.eval()
    assert torch.equal(outputs(student), last[0])
    assert not torch.equal(last[0], before)
    assert adapter_of(student).shape(student) == shape


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("options", [{}, GROUPED], ids=["usual", "grouped"])
def test_afterwards_weights_are_integers_and_scales_have_their_form(model, bits, options):
    student = rounded(model, bits, **options)
    before = copy.deepcopy(adapter_of(student).weights(student))
    apply(student, STEP, replace(context_for(model), unrounded=model))
    after = adapter_of(student).weights(student)
    assert {name: (a.shape, a.dtype) for name, a in after.items()} == {
        name: (a.shape, a.dtype) for name, a in before.items()
    }
    low, high = ends_of(bits, grouped=bool(options) or bits < 8)
    for name in (name for name in after if name.endswith("zero_points")):
        assert np.array_equal(after[name], before[name]), name
    for name in (name for name in after if name.endswith("scale")):
        assert np.array_equal(np.sign(after[name]), np.sign(before[name])), name
        assert not np.array_equal(after[name], before[name]), name
    levels = after["layers.0.qkv.weight"]
    assert levels.dtype == np.int8 and levels.min() >= low and levels.max() <= high
    assert (levels != before["layers.0.qkv.weight"]).any()
    assert (after["layers.0.qkv.bias"] != before["layers.0.qkv.bias"]).any()
    assert (after["head.classifier.weight"] != before["head.classifier.weight"]).any()


def test_training_brings_a_two_bit_student_nearer_to_its_teacher():
    teacher, other = tiny_model("bert"), tiny_model("bert", seed=1)
    student = rounded(other, 2)

    def distance() -> float:
        return float((outputs(student).log_softmax(-1) - outputs(teacher).log_softmax(-1)).square().mean())

    before = distance()
    step = QuantizationAwareStep(30, 3e-3, seed=0, recipe="self_distillation")
    apply(student, step, replace(context_for(teacher), unrounded=other)).eval()
    assert distance() < 0.5 * before


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_gradients_are_those_of_lsq(bits):
    """Equation 3 for the step size, times ds/dt = s / rms(v); equation 5 for the floats."""
    generator = torch.Generator().manual_seed(1)
    floats = torch.randn(3, 70, generator=generator)
    grid = grid_of(floats, bits)
    module = LearnedRounding(grid.levels(floats), grid.scale, bits, floats)
    with torch.no_grad():
        module.log_step.copy_(-0.3 + 0.1 * torch.randn(grid.scale.shape, generator=generator))  # Some are cut off now.
    upstream = torch.randn(3, 70, generator=generator)
    found = module()
    spread = found["scale"][:, None] if bits == 8 else found["scale"].repeat_interleave(32, 1)[:, :70]
    (found["weight"] * spread * upstream).sum().backward()

    v, g = module.weight.detach().double(), upstream.double()
    rms = v.square().mean().sqrt()
    scale = grid.scale.double() * torch.exp(module.log_step.detach().double() / rms)
    s = scale[:, None].expand(3, 70) if bits == 8 else scale.repeat_interleave(32, 1)[:, :70]
    low, high = (-127, 127) if bits == 8 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    ratio = v / s
    inside = (ratio >= low) & (ratio <= high)
    assert inside.any() and not inside.all()
    slope = torch.where(inside, ratio.round() - ratio, ratio.clamp(low, high)) * s / rms * g
    groups = [slope] if bits == 8 else slope.split(32, dim=1)
    expected = torch.stack([group.sum(1) for group in groups], 1).reshape(scale.shape)
    torch.testing.assert_close(module.log_step.grad.double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(module.weight.grad.double(), torch.where(inside, g, 0.0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_gradients_of_steps_know_zero_points(bits):
    """Inside the grid they are round(v / s) - v / s, outside the end less the zero point, times ds/dt = s / rms(v)."""
    generator = torch.Generator().manual_seed(1)
    floats, stored = torch.randn(3, 70, generator=generator) + 1, WeightGrid(64, zero_points=True)
    grid = grid_of(floats, bits, stored=stored)
    module = LearnedRounding(grid.levels(floats), grid.scale, bits, floats, stored, grid.zero_points)
    with torch.no_grad():
        module.log_step.fill_(-0.5)  # Some are cut off now.
    found, zeros = module(), grid.zeros(70)
    weight = (found["weight"] - zeros) * found["scale"].repeat_interleave(64, 1)[:, :70]
    upstream = torch.randn(3, 70, generator=generator)
    (weight * upstream).sum().backward()
    v = module.weight.detach().double()
    rms = v.square().mean().sqrt()
    s = (grid.scale.double() * torch.exp(-0.5 / rms)).repeat_interleave(64, 1)[:, :70]
    level, (low, high) = v / s + zeros, ends_of(bits, grouped=True)
    inside = (level >= low) & (level <= high)
    assert inside.any() and not inside.all() and zeros.any()
    slope = torch.where(inside, (v / s).round() - v / s, level.clamp(low, high) - zeros) * s / rms * upstream
    expected = torch.stack([part.sum(1) for part in slope.split(64, 1)], 1)
    torch.testing.assert_close(module.log_step.grad.double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(module.weight.grad, torch.where(inside, upstream, 0.0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bits", WIDTHS)
def test_activations_pass_gradients_as_if_they_had_not_been_rounded(bits):
    linear = nn.Linear(70, 6)
    levels, scale = quantize_rows(linear.weight.detach(), bits)
    module = QuantizedLinear(levels, scale, linear.bias.detach(), bits)
    x, upstream = torch.randn(2, 3, 70, requires_grad=True), torch.randn(2, 3, 6)
    (module(x) * upstream).sum().backward()
    each = 1.0
    if scale is not None:
        each = (scale[:, None] if bits == 8 else scale.repeat_interleave(32, 1)[:, :70]).double()
    torch.testing.assert_close(x.grad.double(), upstream.double() @ (levels.double() * each), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("smoothed", [False, True])
def test_fixed_ranges_pass_gradients_of_what_lies_within_them(smoothed):
    x = torch.tensor([[-3.0, -0.9, 0.3, 1.4, 5.0]], requires_grad=True)
    inverse = torch.tensor([4.0, 5.0, 100.0, 60.0, 70.0]) if smoothed else None
    StaticQuantizer(torch.tensor([1 / 64]), torch.tensor([100], dtype=torch.uint8), inverse)(x).sum().backward()
    each = torch.full((5,), 64.0) if inverse is None else inverse
    within = ((x * each).round() >= -100) & ((x * each).round() <= 155)
    assert within.any() and not within.all()
    torch.testing.assert_close(x.grad, torch.where(within, each, 0.0))


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_a_weight_of_zeros_stays_zero_and_gives_no_nan(bits):
    """Its step size is next to nothing, so that any change of a float leaves the grid."""
    levels, scale = quantize_rows(torch.zeros(2, 32), bits)
    module = LearnedRounding(levels, scale, bits, torch.zeros(2, 32))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        found = module()
        (found["weight"] * found["scale"].reshape(2, 1) * torch.randn(2, 32)).sum().backward()
        optimizer.step()
    assert module.weight.abs().max() > 0
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    found = {name: tensor.detach() for name, tensor in module().items()}
    assert (found["weight"] * found["scale"].reshape(2, 1)).abs().max() < 1e-10


def test_rows_of_tokens_that_no_document_has_keep_their_levels():
    model = tiny_model("bert")
    student = rounded(model, 4)
    table = adapter_of(student).token_embedding(student)
    before = table.weight.clone()
    apply(student, STEP, replace(context_for(model), unrounded=model))
    assert adapter_of(student).token_embedding(student) is table
    moved = (table.weight != before).any(1)
    seen = torch.zeros(60, dtype=torch.bool)
    seen[torch.cat([batch.input_ids.flatten() for batch in batches(12)])] = True
    assert moved.any() and not moved[~seen].any()


def test_training_that_fails_leaves_quantized_modules():
    model = tiny_model("bert")
    student = rounded(model, 4)
    kept = quantized(student)
    context = replace(context_for(model), teacher=Lost(model))
    with pytest.raises(TrainingDivergedError):
        apply(student, STEP, context)
    assert quantized(student) == kept
    assert not any(isinstance(module, LearnedModule) for module in student.modules())


def test_without_steps_nothing_changes():
    model = tiny_model("bert")
    student = rounded(model, 4)
    before = copy.deepcopy(student.state_dict())
    apply(student, replace(STEP, steps=0), context_for(model))
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_the_same_seed_trains_the_same_student():
    model = tiny_model("bert")
    first, second = (apply(rounded(model, 2), STEP, context_for(model)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
