import dataclasses

import pytest
import torch

from autocompress.compression.recipes.features import Feature, observe
from autocompress.compression.recipes.store import OutputStore
from autocompress.compression.recipes.teacher import Keeping, TeacherOutputs
from autocompress.training import device
from tests.compression.training_data import Batch, batches, context_for, masked
from tests.conftest import tiny_model

FEATURES = (Feature("hidden", 0), Feature("hidden", 3), Feature("query", 2))
DOCUMENTS = [[number] * 6 for number in range(8)]
"""As long as those of the batches; what they hold only has to tell them from others."""


def keeping(folder, fingerprint="a teacher", documents=DOCUMENTS):
    return Keeping(OutputStore(folder, 10**7), fingerprint, documents)


@pytest.fixture
def runs(monkeypatch):
    """How often a model ran."""
    counted = []

    def count(model):
        forward = model.forward
        monkeypatch.setattr(model, "forward", lambda *args, **named: counted.append(1) or forward(*args, **named))
        return model

    return counted, count


def test_answers_are_those_of_the_model_and_each_document_is_answered_once(runs):
    counted, count = runs
    teacher = count(tiny_model("bert"))
    outputs, first = TeacherOutputs(teacher), batches(1)[0]
    expected = observe(teacher, first, ()).logits
    torch.testing.assert_close(outputs(first).logits, expected)
    counted.clear()
    flipped = Batch(*(field.flip(0) for field in vars(first).values()))
    torch.testing.assert_close(outputs(flipped).logits, expected.flip(0))
    assert counted == []


def test_what_was_kept_is_not_computed_again_by_whoever_comes_next(family, tmp_path, runs):
    counted, count = runs
    teacher = count(tiny_model(family))
    alone, first = TeacherOutputs(teacher), TeacherOutputs(teacher, keeping=keeping(tmp_path))
    fresh, told = ([outputs(batch, FEATURES) for batch in batches(6)] for outputs in (alone, first))
    counted.clear()
    second = TeacherOutputs(teacher, keeping=keeping(tmp_path))
    for batch, expected, as_told in zip(batches(6), fresh, told, strict=True):
        found = second(batch, FEATURES)
        assert all(torch.equal(found.features[feature], as_told.features[feature]) for feature in FEATURES)
        assert torch.equal(found.logits, expected.logits)
        for feature in FEATURES:
            wanted = expected.features[feature]
            assert ((found.features[feature] - wanted).abs() <= 2**-11 * wanted.abs() + 2**-25).all()
    assert counted == []


def test_padding_is_no_part_of_what_is_kept(tmp_path):
    teacher, batch = tiny_model("bert"), batches(1)[0]
    mask = batch.attention_mask.clone()
    mask[:, 4:] = 0
    short = dataclasses.replace(batch, attention_mask=mask)
    place = keeping(tmp_path, documents=[[number] * 4 for number in range(8)])
    expected = TeacherOutputs(teacher, keeping=place)(short, FEATURES).features[FEATURES[1]]
    found = TeacherOutputs(teacher, keeping=place)(short, FEATURES).features[FEATURES[1]]
    assert found.shape == expected.shape
    torch.testing.assert_close(found[:, :4], expected[:, :4], rtol=1e-3, atol=1e-3)
    assert (found[:, 4:] == 0).all()


@pytest.mark.parametrize("other", [{"fingerprint": "another"}, {"documents": [[9] * 6] * 8}])
def test_another_teacher_or_other_tokens_have_features_of_their_own(tmp_path, runs, other):
    counted, count = runs
    teacher = count(tiny_model("bert"))
    TeacherOutputs(teacher, keeping=keeping(tmp_path))(batches(1)[0], FEATURES)
    counted.clear()
    TeacherOutputs(teacher, keeping=keeping(tmp_path, **other))(batches(1)[0], FEATURES)
    assert counted


def test_students_of_other_tokens_are_answered_as_the_teacher_reads_and_compared_as_they_read():
    teacher, own = tiny_model("bert"), batches(1)[0]
    shifted = dataclasses.replace(own, input_ids=own.input_ids - 5)
    outputs = TeacherOutputs(teacher, read=lambda indices: own).for_tokens(lambda ids: ids + 5)
    found = outputs(shifted, FEATURES)
    expected = observe(teacher, own, FEATURES)
    torch.testing.assert_close(found.logits, expected.logits)
    for feature in FEATURES:
        torch.testing.assert_close(found.features[feature], expected.features[feature])


@pytest.mark.parametrize("corpus", ["task", "text"])
def test_a_teacher_answers_in_full_precision_where_its_student_is_trained_in_bfloat16(corpus, monkeypatch):
    """What is kept must not depend on the device."""
    batch = (masked if corpus == "text" else batches)(1, 0)[0]
    first, second = (context_for(tiny_model("bert")).lesson(corpus) for _ in range(2))
    expected = first.teacher(None, batch, FEATURES)
    monkeypatch.setattr(device, "MIXED", {"cpu"})
    with device.mixed_precision(torch.device("cpu")):
        found = second.teacher(None, batch, FEATURES)
    assert torch.equal(found.logits, expected.logits)
    assert all(torch.equal(found.features[feature], expected.features[feature]) for feature in FEATURES)
