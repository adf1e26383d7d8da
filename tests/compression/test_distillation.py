import copy
from dataclasses import replace

import torch
from torch.nn import functional

from autocompress.compression.distillation import DistillStep, TeacherLogits, apply, distillation_loss
from tests.compression.training_data import batches, context_for
from tests.conftest import tiny_model


def test_the_soft_loss_is_zero_for_the_teacher_itself():
    logits = torch.randn(5, 4)
    step = DistillStep(1, 1e-3, 0, label_weight=0.0)
    assert abs(float(distillation_loss(logits, logits, torch.zeros(5, dtype=torch.int64), step))) < 1e-6


def test_the_loss_is_the_formula():
    student, teacher, labels = torch.randn(3, 4), torch.randn(3, 4), torch.tensor([0, 3, 1])
    step = DistillStep(1, 1e-3, 0, temperature=3.0, label_weight=0.25)
    p, q = functional.softmax(teacher.double() / 3, -1), functional.softmax(student.double() / 3, -1)
    kl = (p * (p.log() - q.log())).sum(-1).mean()
    ce = -functional.log_softmax(student.double(), -1)[range(3), labels].mean()
    torch.testing.assert_close(
        distillation_loss(student, teacher, labels, step).double(), 0.75 * 9 * kl + 0.25 * ce, rtol=1e-5, atol=1e-6
    )


def test_distillation_brings_the_student_nearer_to_its_teacher():
    teacher, student = tiny_model("bert"), tiny_model("bert", seed=1)
    batch = batches(1)[0]

    def distance(model) -> float:
        with torch.no_grad():
            outputs = [
                m(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits for m in (teacher, model)
            ]
        return float(functional.mse_loss(*(functional.log_softmax(logits, -1) for logits in outputs)))

    before = distance(student)
    apply(student, DistillStep(30, 3e-3, 0, label_weight=0.0), context_for(teacher))
    assert distance(student) < 0.5 * before


def test_the_teacher_runs_once_an_example():
    teacher = tiny_model("bert")
    logits = TeacherLogits(teacher, examples=8, classes=3)
    batch = batches(1)[0]
    first = logits(batch)
    broken = copy.deepcopy(teacher)
    logits._teacher = None  # a second run would fail
    assert torch.equal(logits(batch), first)
    with torch.no_grad():
        expected = broken(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    torch.testing.assert_close(first, expected)


def test_the_teacher_reads_examples_with_its_own_tokenizer():
    """A student's ids may mean other tokens."""
    teacher, own = tiny_model("bert"), batches(1)[0]
    ids = {int(index): row for index, row in zip(own.indices, own.input_ids, strict=True)}

    def read(indices):
        return replace(own, input_ids=torch.stack([ids[int(index)] for index in indices]))

    strange = replace(own, input_ids=torch.full((4, 9), 3), attention_mask=torch.ones(4, 9, dtype=torch.int64))
    expected = TeacherLogits(teacher, examples=8, classes=3)(own)
    torch.testing.assert_close(TeacherLogits(teacher, examples=8, classes=3, read=read)(strange), expected)
