"""A student of fewer tokens reads with its own tokenizer wherever it goes, and its teacher with the teacher's."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from autocompress.compression.distillation import DistillStep
from autocompress.compression.methods import reshape_plan
from autocompress.compression.vocabulary import VocabularyStep
from autocompress.config import load_config
from autocompress.errors import ConfigError
from autocompress.evaluation.task import predict_with
from autocompress.feeds import of_text
from autocompress.models.load import adapter_of
from autocompress.pipeline import candidates, finalists
from autocompress.pipeline.candidates import Students
from autocompress.pipeline.run import search
from autocompress.pipeline.setting import check
from autocompress.pipeline.teacher import load_teacher
from autocompress.pipeline.vocabulary import check_coverage, token_counts
from autocompress.pipeline.workspace import Workspace
from autocompress.plan import CompressionPlan
from autocompress.runtime.session import Session

KEEP = 18
"""Of 23 tokens: four special ones and a mask that never occurs are among the others."""
PLAN = CompressionPlan((VocabularyStep(KEEP), DistillStep(3, 1e-3, 0)))


@pytest.fixture(scope="module")
def teacher(world):
    return load_teacher(load_config(world.run_file))


@pytest.fixture
def students(teacher):
    return Students(teacher, batch_size=16, seed=0, coverage=0.5)


def test_the_task_of_a_student_is_the_teachers_with_fewer_tokens(teacher, students):
    task = students.task(PLAN)
    assert len(task.tokenizer) == KEEP and task.dataset is teacher.task.dataset
    assert students.task(CompressionPlan()) is teacher.task
    assert students.task(PLAN) is task
    for batch in task.batches("test", batch_size=8):
        assert int(batch.input_ids.max()) < KEEP
    gone = set(teacher.task.tokenizer.get_vocab()) - set(task.tokenizer.get_vocab())
    assert "[MASK]" in gone and len(gone) == 5


def test_documents_of_kept_tokens_are_classified_as_by_the_teacher(teacher, students):
    plan = CompressionPlan((VocabularyStep(KEEP),))
    student, small = students.make(plan), students.task(plan).tokenizer
    whole = teacher.task.tokenizer
    kept = [text for text in teacher.task.dataset.test.texts if "[UNK]" not in small.tokenize(text)]
    assert 3 < len(kept) < len(teacher.task.dataset.test.texts)
    for text in kept:
        ids = {each: np.array([each(text)["input_ids"]]) for each in (small, whole)}
        expected = predict_with(teacher.model)(of_text(ids[whole]))
        np.testing.assert_allclose(predict_with(student)(of_text(ids[small])), expected, atol=1e-5)


def test_a_student_learns_from_its_own_documents_and_a_teacher_that_reads_its_own(teacher, students, monkeypatch):
    seen = []

    def noting(model, plan, context):
        counts = context.token_counts(KEEP)
        seen.extend((batch, context.teacher(batch).logits, counts) for batch in context.batches(3, 0))
        return model

    monkeypatch.setattr(candidates, "apply_plan", noting)
    students.make(PLAN)
    assert len(seen) == 6  # Up to and from training on.
    for batch, logits, counts in seen:
        texts = [teacher.task.dataset.train.texts[index] for index in batch.indices]
        own = teacher.task.encode(texts)
        assert int(batch.input_ids.max()) < KEEP <= max(max(ids) for ids in own)
        for row, ids in zip(logits, own, strict=True):
            alone = predict_with(teacher.model)(of_text(np.array([ids])))
            np.testing.assert_allclose(row.numpy(), alone[0], atol=1e-5)
        small = students.task(PLAN)
        assert [len(ids) for ids in small.encode(texts)] == batch.attention_mask.sum(1).tolist()
        torch.testing.assert_close(counts, token_counts(small, KEEP))
        assert int(counts.sum()) == sum(map(len, small.encode(teacher.task.dataset.train.texts)))


def test_smaller_vocabularies_are_nested_and_the_same_in_every_process(teacher):
    names = [
        set(
            Students(teacher, batch_size=16, seed=0, coverage=0.5)
            .task(CompressionPlan((VocabularyStep(keep),)))
            .tokenizer.get_vocab()
        )
        for keep in (12, 15, 15, 20)
    ]
    assert names[1] == names[2]
    assert all(small <= large for small, large in pairwise(names))


def test_a_finished_student_is_read_back_only_where_its_tokens_are_the_same(world, teacher, students, tmp_path):
    config, workspace, trained = load_config(world.run_file), Workspace(tmp_path / "run"), []
    workspace.create()
    where = {"config": config, "workspace": workspace, "target": None, "container": "so"}

    def make(own: Students) -> int:
        before, own._progress = len(trained), lambda *event: trained.append(event)
        finalists.make("candidate 1", PLAN, students=own, finalist=True, **where)
        return len(trained) - before

    other = Students(teacher, batch_size=16, seed=0, coverage=0.5)
    order = students._vocabularies.order(23)
    other._vocabularies.__dict__["_order"] = (*order[: KEEP - 1], order[KEEP], order[KEEP - 1], *order[KEEP + 1 :])
    assert [make(each) for each in (students, students, other)] == [3, 0, 3]


def test_a_student_has_the_shape_that_was_foreseen(teacher, students):
    student = students.make(PLAN)
    assert adapter_of(student).shape(student) == reshape_plan(teacher.shape, PLAN)


def test_a_share_that_leaves_too_little_of_the_documents_is_refused_before_anything_is_trained(world, teacher):
    options = ["search.space.vocabulary_keep=[0.4,1.0]", "search.space.vocabulary_coverage=0.9"]
    with pytest.raises(ConfigError, match=r"vocabulary_keep has 0\.4, which is 9 tokens") as caught:
        check(load_config(world.run_file, options))
    assert "vocabulary_coverage" in caught.value.next_step
    counts = teacher.task.token_counts("train", 23)
    counts[teacher.task.tokenizer.all_special_ids] = 0
    words = np.sort(counts)[::-1].cumsum() / counts.sum()
    least = 4 + 1 + int(np.searchsorted(words, 0.9))
    assert f"{least} tokens make up 0.9" in caught.value.right
    check_coverage(teacher.task, 23, [least / 23], 0.9)
    with pytest.raises(ConfigError):
        check_coverage(teacher.task, 23, [(least - 1) / 23], 0.9)


def test_a_package_reads_with_the_students_tokenizer_and_answers_as_was_reported(world):
    space = ["vocabulary_keep=[0.8]", "vocabulary_coverage=0.5", "embedding_rank=[8]"]
    options = ["name=small", "search.trials=2", "search.baselines=false", "export.formats=[onnxruntime]"]
    config = load_config(world.run_file, [*options, *(f"search.space.{choice}" for choice in space)])
    report = search(config)
    best = world.folder / "runs/small" / ("best" if report.verdict == "pass" else "closest")
    manifest = json.loads((best / "manifest.json").read_text())
    tokenizer = Tokenizer.from_file(str(best / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == KEEP == round(0.8 * 23)
    assert all(parity["passed"] for parity in manifest["parity"])
    dataset = load_teacher(config).task.dataset
    found = Session(best).classify(dataset.test.texts)
    right = [dataset.classes[label] == one.label for label, one in zip(dataset.test.labels, found, strict=True)]
    (winner,) = manifest["measured"]
    assert manifest["scores"][winner]["value"] == pytest.approx(float(np.mean(right)))
