import copy

import pytest
import torch

from autocompress.compression.captures import output_linears, unit_inputs
from autocompress.compression.depth import DepthStep
from autocompress.compression.ffn import FfnStep
from autocompress.compression.heads import HeadStep
from autocompress.compression.methods import apply_plan
from autocompress.compression.order import OrderStep
from autocompress.compression.ranking.obs import damped, remove
from autocompress.compression.repair import RepairStep, apply
from autocompress.compression.repairs import mask_tuning
from autocompress.compression.repairs.least_squares import least_squares
from autocompress.compression.repairs.lineage import number_layers, teacher_layers
from autocompress.compression.repairs.mask_tuning import unit_scales
from autocompress.compression.repairs.sublayers import documents_of
from autocompress.errors import UnsupportedError
from autocompress.models.load import adapter_of
from autocompress.plan import CompressionPlan
from autocompress.training.batches import TokenBatch
from tests.compression.training_data import batches, context_for
from tests.conftest import tiny_model

NARROW = (OrderStep("obs", "obs"), HeadStep((3, 3, 3)), FfnStep((64, 64, 64)))


def all_logits(model):
    with torch.no_grad():
        return torch.cat(
            [model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits for batch in batches(4)]
        )


def distance(student, teacher):
    return float((all_logits(student) - all_logits(teacher)).square().mean().sqrt())


def tokens(rows=120, inputs=12, outputs=5):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, inputs, generator=generator) @ torch.randn(inputs, inputs, generator=generator)
    linear = torch.nn.Linear(inputs, outputs)
    return x, linear


def test_least_squares_of_kept_columns_is_where_removal_with_compensation_ends():
    x, dense = tokens()
    x = x - x.mean(0)  # Then a bias explains nothing, and the damping of both is the same.
    gram = (x.double().T @ x.double()) / len(x)
    removal = remove(dense.weight.detach(), damped(gram, 0.0), count=5)
    kept = torch.tensor(sorted(set(range(12)) - set(removal.removed)))
    narrow = torch.nn.Linear(7, 5)
    narrow.weight.data, narrow.bias.data = dense.weight.detach()[:, kept].clone(), dense.bias.detach().clone()
    weight, bias = least_squares(x[:, kept], (dense(x) - narrow(x[:, kept])).detach(), damping=0.0)
    found = (narrow.weight + weight).detach().double()
    torch.testing.assert_close(found, removal.weight[:, kept], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(bias, torch.zeros(5), rtol=1e-3, atol=1e-4)


def test_least_squares_is_the_damped_weighted_fit():
    x, _ = tokens()
    errors, w = torch.randn(120, 5), torch.rand(120)
    weight, bias = least_squares(x, errors, damping=0.1, weights=w)
    design = torch.cat([x, torch.ones(120, 1)], 1).double()
    gram = design.T @ (w.double()[:, None] * design)
    ridge = torch.diag(torch.tensor([0.1 * float(gram.diagonal()[:12].mean())] * 12 + [0.0], dtype=torch.float64))
    expected = (w[:, None] * errors).double().T @ design @ torch.linalg.inv(gram + ridge)
    torch.testing.assert_close(torch.cat([weight, bias[:, None]], 1).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [1, 3])
def test_mask_tuning_is_the_damped_fit_of_scales_and_never_raises_the_error(width):
    x, linear = tokens()
    w, errors = linear.weight.detach().double(), 0.5 * torch.randn(120, 5) + 0.3 * x[:, :5]
    scales = unit_scales(x, errors, linear.weight, width=width)
    columns = torch.einsum("tuk,ouk->tou", x.double().reshape(120, -1, width), w.reshape(5, -1, width)).flatten(0, 1)
    right = errors.double().reshape(-1)
    identity = torch.eye(12 // width, dtype=torch.float64)
    expected = 1 + torch.linalg.solve(columns.T @ columns + identity, columns.T @ right)
    torch.testing.assert_close(scales, expected, rtol=1e-4, atol=1e-6)
    assert (right - columns @ (scales - 1)).square().sum() < right.square().sum()


def test_scales_beyond_ten_are_rejected():
    x, linear = tokens()
    assert unit_scales(x, 99 * (x @ linear.weight.detach().T), linear.weight, width=1) is None


def test_a_student_of_refitted_weights_is_far_nearer_to_its_teacher(model):
    """With 24 tokens there are more unknowns an output than equations: what is fitted is met, but for the damping."""
    context = context_for(model)
    pruned = apply_plan(model, CompressionPlan(NARROW), context)
    repaired = apply_plan(model, CompressionPlan((*NARROW, RepairStep("least_squares", 4, 0))), context)
    assert distance(repaired, model) < 0.1 * distance(pruned, model)


def test_tuned_sublayers_come_nearer_to_what_their_teacher_gave(model):
    """That is, the first feed-forward block: attention before it is left alone, later ones get other inputs."""
    context = context_for(model)
    pruned = apply_plan(model, CompressionPlan(NARROW), context)
    tuned = apply_plan(model, CompressionPlan((*NARROW, RepairStep("mask_tuning", 4, 0))), context)
    dense, before, after = (documents_of(one, batches(4)).sums for one in (model, pruned, tuned))
    assert torch.equal(after[0], before[0])
    assert (after[1] - dense[1]).norm() < (before[1] - dense[1]).norm()


def test_tuning_ends_where_scales_are_rejected(monkeypatch):
    teacher = tiny_model("bert")
    context = context_for(teacher)
    pruned = apply_plan(teacher, CompressionPlan(NARROW), context)
    before = copy.deepcopy(pruned.state_dict())
    monkeypatch.setattr(mask_tuning, "LARGEST_SCALE", 0.0)
    after = apply(pruned, RepairStep("mask_tuning", 4, 0), context).state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("kind", ["none", "mask_tuning", "least_squares"])
def test_a_model_that_lost_nothing_stays_as_it_is(model, kind):
    whole = apply_plan(model, CompressionPlan((RepairStep(kind, 4, 0),)), context_for(model))
    assert distance(whole, model) < 1e-5


@pytest.mark.parametrize("kind", ["mask_tuning", "least_squares"])
def test_repair_is_the_same_twice_and_needs_no_labels(kind):
    teacher = tiny_model("bert")
    context = context_for(teacher)
    pruned = apply_plan(teacher, CompressionPlan(NARROW), context)
    unlabelled = [TokenBatch(b.input_ids, b.attention_mask) for b in batches(4)]
    without = type("Context", (), {"documents": lambda self, count, seed: documents_of(teacher, unlabelled)})()
    students = [apply(copy.deepcopy(pruned), RepairStep(kind, 4, 0), one).state_dict() for one in (context, without)]
    assert all(torch.equal(students[0][name], students[1][name]) for name in students[0])


def test_the_layers_that_are_left_stand_in_for_those_that_went(model):
    context = context_for(model)
    steps = (DepthStep((0, 2)),)
    dropped = apply_plan(model, CompressionPlan(steps), context)
    repaired = apply_plan(model, CompressionPlan((*steps, RepairStep("least_squares", 4, 0))), context)
    assert distance(repaired, model) < 0.1 * distance(dropped, model)
    assert teacher_layers(repaired, model) == (0, 2)


def test_each_sublayer_sees_what_the_repaired_ones_before_it_give(model):
    """The weights of the last linear are the best for the inputs that it gets in the end, not for the teacher's."""
    context = context_for(model)
    student = apply_plan(model, CompressionPlan((*NARROW, RepairStep("least_squares", 4, 0))), context)
    norms = documents_of(model, batches(4)).sums
    sums = documents_of(student, batches(4)).sums
    for dense, repaired in zip(norms, sums, strict=True):
        assert (repaired - dense).norm() < 0.2 * dense.norm()
    inputs = [inputs for _, inputs in unit_inputs(student, batches(4))]
    assert inputs[0][0].shape[-1] == output_linears(student)[0].module.in_features == 36


def test_a_student_that_does_not_know_its_layers_is_refused():
    teacher = tiny_model("bert")
    student = copy.deepcopy(teacher)
    adapter_of(student).keep_layers(student, (0, 2))
    with pytest.raises(UnsupportedError, match="does not know"):
        apply(student, RepairStep("least_squares", 1, 0), context_for(teacher))
    numbered = number_layers(copy.deepcopy(teacher))
    adapter_of(numbered).keep_layers(numbered, (1, 2))
    assert teacher_layers(number_layers(numbered), teacher) == (1, 2)
