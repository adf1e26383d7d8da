import pytest
import torch

from autocompress.compression.method import Context
from autocompress.compression.recipes.features import Feature
from autocompress.compression.recipes.fit import fit
from autocompress.compression.recipes.lessons import Guessing
from autocompress.compression.recipes.masking import NOT_ASKED
from autocompress.compression.recipes.table import RECIPES
from autocompress.compression.recipes.teacher import TeacherOutputs
from autocompress.errors import UnsupportedError
from autocompress.models.language_head import new_head, token_rows
from autocompress.models.load import adapter_of
from tests.compression.training_data import batches, masked
from tests.conftest import tiny_model


def guessing(teacher, kept=None, tokens=60):
    head = new_head(teacher, generator=torch.Generator().manual_seed(1))
    return Guessing(masked, teacher, head, counts=torch.ones(tokens), kept=kept)


def test_a_student_of_equal_widths_guesses_as_its_teacher_at_first(family):
    teacher = tiny_model(family)
    lesson = guessing(teacher)
    student, batch = tiny_model(family), masked(1, 0)[0]
    head = lesson.head(student)
    ours = lesson.student(student, head, batch, ())
    theirs = lesson.teacher(None, batch, ())
    assert ours.logits.shape == (2, 60)
    torch.testing.assert_close(ours.logits, theirs.logits)
    assert head is not lesson.language_head


def test_guesses_are_logits_of_masked_tokens_alone(family):
    teacher = tiny_model(family)
    lesson, batch, last = guessing(teacher), masked(1, 0)[0], Feature("hidden", 3)
    found = lesson.teacher(None, batch, [last])
    hidden = found.features[last][:2, 1]
    torch.testing.assert_close(found.logits, lesson.language_head(hidden, token_rows(teacher)))
    assert lesson.labels(batch).tolist() == batch.labels[batch.labels != NOT_ASKED].tolist()


def test_a_teacher_of_more_tokens_reads_and_weighs_those_of_the_student(family):
    teacher, kept = tiny_model(family), torch.cat([torch.arange(5), torch.arange(10, 55)])
    batch = masked(1, 0)[0]
    few, all_of_them = guessing(teacher, kept, tokens=50), guessing(teacher)
    translated = type(batch)(kept[batch.input_ids], batch.attention_mask, batch.labels)
    expected = all_of_them.teacher(None, translated, ()).logits[:, kept]
    torch.testing.assert_close(few.teacher(None, batch, ()).logits, expected)
    student = tiny_model(family)
    adapter_of(student).keep_tokens(student, kept.tolist())
    ours = few.student(student, few.head(student), batch, ()).logits
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_a_narrow_student_gets_a_head_of_its_own():
    student = tiny_model("bert", seed=1)
    adapter_of(student).keep_hidden(student, range(24), range(24))
    lesson = guessing(tiny_model("bert"))
    head = lesson.head(student)
    assert lesson.student(student, head, masked(1, 0)[0], ()).logits.shape == (2, 60)


def test_a_recipe_that_reads_what_is_not_at_hand_says_so():
    teacher = tiny_model("bert")
    context = Context(batches, TeacherOutputs(teacher))
    for name, what in (("distilbert", "text with tokens to guess"), ("tinybert", "data augmentation")):
        with pytest.raises(UnsupportedError, match=what):
            fit(tiny_model("bert", seed=1), RECIPES[name], context, steps=2, learning_rate=1e-3, seed=0)
