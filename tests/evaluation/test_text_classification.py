from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from autocompress.errors import ConfigError, UnsupportedError
from autocompress.evaluation.datasets import Dataset, Split
from autocompress.evaluation.metrics import macro_f1
from autocompress.evaluation.task import WINDOW, EvaluationError, answered_by, predict_with
from autocompress.evaluation.text_classification import Batch, TextClassification
from autocompress.feeds import Feeds, Logits, of_text
from tests.conftest import tiny_model

RNG = np.random.default_rng(0)
CLASSES = ("a", "b", "c")


def make_split(count: int) -> Split:
    """Documents of 1 to 12 words; the label is the first word's number modulo 3."""
    words = [RNG.integers(0, 20, RNG.integers(1, 13)) for _ in range(count)]
    return Split(tuple(" ".join(f"w{n}" for n in doc) for doc in words), tuple(int(doc[0]) % 3 for doc in words))


DATASET = Dataset(make_split(90), make_split(40), make_split(50), CLASSES)


@pytest.fixture
def task(tokenizer: PreTrainedTokenizerFast) -> TextClassification:
    return TextClassification(DATASET, tokenizer, max_tokens=10)


def oracle(given: Feeds) -> Logits:
    """Answer right: word w0 has id 4."""
    return np.eye(3, dtype=np.float32)[(given["input_ids"][:, 1] - 4) % 3]


def always_first(given: Feeds) -> Logits:
    return np.tile(np.array([[2.0, 1.0, 0.0]], np.float32), (len(given["input_ids"]), 1))


def indices(batches: list[Batch]) -> list[int]:
    return torch.cat([batch.indices for batch in batches]).tolist()


class TestEncoding:
    def test_adds_special_tokens_and_cuts_at_the_limit(self, task: TextClassification) -> None:
        long = " ".join(["w3"] * 30)
        assert task.encode(["w0 w1", long]) == [[1, 4, 5, 2], [1, *[7] * 8, 2]]


class TestBatches:
    @pytest.mark.parametrize("seed", [None, 0, 7])
    def test_hold_each_document_once_with_its_tokens_and_label(
        self, task: TextClassification, seed: int | None
    ) -> None:
        batches = task.batches("train", batch_size=16, seed=seed)
        assert sorted(indices(batches)) == list(range(90))
        for batch in batches:
            for row, index in enumerate(batch.indices.tolist()):
                ids = task.encode([DATASET.train.texts[index]])[0]
                assert batch.input_ids[row][batch.attention_mask[row] == 1].tolist() == ids
                assert (batch.input_ids[row][batch.attention_mask[row] == 0] == 0).all()
                assert batch.labels[row] == DATASET.train.labels[index]

    def test_are_padded_to_their_longest_document_only(self, task: TextClassification) -> None:
        for batch in task.batches("test", batch_size=8):
            assert batch.attention_mask.sum(dim=1).max() == batch.input_ids.shape[1]

    def test_for_evaluation_are_sorted_by_length(self, task: TextClassification) -> None:
        lengths = torch.cat([batch.attention_mask.sum(dim=1) for batch in task.batches("test", batch_size=8)])
        assert (lengths.diff() >= 0).all()

    def test_the_seed_alone_decides_the_shuffle(self, task: TextClassification) -> None:
        def drawn(seed: int) -> list[int]:
            return indices(task.batches("train", batch_size=16, seed=seed))

        assert drawn(3) == drawn(3)
        assert drawn(3) != drawn(4)

    def test_for_training_are_sorted_among_a_few_batches_and_come_in_any_order(self, task: TextClassification) -> None:
        spans = [batch.attention_mask.sum(dim=1).aminmax() for batch in task.batches("train", batch_size=4, seed=3)]
        windows = [spans[start : start + WINDOW] for start in range(0, len(spans), WINDOW)]
        for window in windows:
            in_order = sorted(window, key=lambda span: (int(span.min), int(span.max)))
            assert all(before.max <= after.min for before, after in pairwise(in_order))
        assert any(window != sorted(window, key=lambda span: (int(span.min), int(span.max))) for window in windows)

    def test_can_be_padded_to_a_fixed_length(self, task: TextClassification) -> None:
        assert {tuple(b.input_ids.shape) for b in task.batches("test", batch_size=1, tokens=10)} == {(1, 10)}

    def test_a_limit_draws_the_same_documents_for_every_seed_and_nests(self, task: TextClassification) -> None:
        few, many = (
            [set(indices(task.batches("train", batch_size=4, seed=seed, limit=limit))) for seed in (1, 2)]
            for limit in (15, 30)
        )
        assert few[0] == few[1] and many[0] == many[1]
        assert len(few[0]) == 15 and few[0] < many[0]

    def test_tensors_are_int64(self, task: TextClassification) -> None:
        batch = task.batches("test", batch_size=4)[0]
        assert {t.dtype for t in (batch.input_ids, batch.attention_mask, batch.labels, batch.indices)} == {torch.int64}


class TestScores:
    def test_the_oracle_is_perfect_on_every_split(self, task: TextClassification) -> None:
        for split, count in (("train", 90), ("validation", 40), ("test", 50)):
            score = task.evaluate(oracle, split)
            assert (score.metric, score.value, score.standard_error, score.count) == ("accuracy", 1.0, 0.0, count)

    def test_a_constant_answer_scores_the_share_of_its_class(self, task: TextClassification) -> None:
        share = Counter(DATASET.test.labels)[0] / 50
        score = task.evaluate(always_first, "test", batch_size=7)
        assert score.value == pytest.approx(share)
        assert score.standard_error == pytest.approx((share * (1 - share) / 49) ** 0.5)

    def test_the_metric_is_the_one_that_was_asked_for(self, tokenizer: PreTrainedTokenizerFast) -> None:
        task = TextClassification(DATASET, tokenizer, max_tokens=10, metric="macro_f1")
        counts = Counter(DATASET.test.labels)
        confusion = np.array([[counts[label], 0, 0] for label in range(3)])
        assert task.evaluate(always_first, "test").value == pytest.approx(macro_f1(confusion))

    def test_a_limit_scores_that_many_documents(self, task: TextClassification) -> None:
        assert task.evaluate(oracle, "test", limit=20).count == 20

    @pytest.mark.parametrize("bad", ["nan", "too many classes"])
    def test_logits_that_cannot_be_scored_are_an_error(self, task: TextClassification, bad: str) -> None:
        def predict(given: Feeds) -> Logits:
            count = len(given["input_ids"])
            return np.full((count, 3), np.nan, np.float32) if bad == "nan" else np.zeros((count, 5), np.float32)

        with pytest.raises(EvaluationError, match="logits"):
            task.evaluate(predict, "test")

    def test_padding_does_not_change_the_score_of_a_model(self, task: TextClassification) -> None:
        predict = predict_with(tiny_model("bert"))
        assert task.evaluate(predict, "test", batch_size=1) == task.evaluate(predict, "test", batch_size=50, tokens=16)


class TestTorchModels:
    def test_run_without_dropout_and_go_back_to_their_mode(self) -> None:
        model = tiny_model("bert").train()
        given = of_text(np.array([[1, 5, 2]]))
        first, second = predict_with(model)(given), predict_with(model)(given)
        assert np.array_equal(first, second) and first.dtype == np.float32 and first.shape == (1, 3)
        assert model.training

    def test_may_return_plain_logits(self) -> None:
        class Plain(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.tensor([1.0, -1.0]))

            def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
                return (input_ids * attention_mask).sum(dim=1, keepdim=True) * self.weight

        assert predict_with(Plain())(of_text(np.array([[2, 3]]), np.array([[1, 0]]))).tolist() == [[2.0, -2.0]]


class TestBadTasks:
    def test_an_unknown_metric_lists_the_known_ones(self, tokenizer: PreTrainedTokenizerFast) -> None:
        with pytest.raises(ConfigError, match="accuracy, macro_f1"):
            TextClassification(DATASET, tokenizer, max_tokens=10, metric="f2")

    def test_more_tokens_than_the_model_reads_are_refused(self, tokenizer: PreTrainedTokenizerFast) -> None:
        with pytest.raises(ConfigError, match="at most 16"):
            TextClassification(DATASET, tokenizer, max_tokens=17)

    def test_a_tokenizer_without_padding_is_refused(self, tokenizer: PreTrainedTokenizerFast) -> None:
        bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
        with pytest.raises(UnsupportedError, match="no padding token"):
            TextClassification(DATASET, bare, max_tokens=10)


class TestAnswers:
    def test_are_given_by_place_whatever_the_order_in_which_documents_are_read(self, task: TextClassification) -> None:
        def by_length(given: Feeds) -> Logits:
            return np.eye(3, dtype=np.float32)[given["attention_mask"].sum(1) % 3]

        answers = task.answers(by_length, "test", batch_size=8)
        expected = {place: len(ids) % 3 for place, ids in enumerate(task.tokens("test"))}
        assert answers == expected

    def test_of_a_classifier_can_take_the_place_of_labels(self, task: TextClassification) -> None:
        answered = answered_by(task, always_first, ("train", "validation"))
        assert set(answered.dataset.train.labels) == set(answered.dataset.validation.labels) == {0}
        assert answered.dataset.test == task.dataset.test
        assert answered.evaluate(always_first, "validation").value == 1.0
        assert answered.evaluate(always_first, "test") == task.evaluate(always_first, "test")
