from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from autocompress.evaluation.metrics import METRICS, accuracy, confusion_matrix, macro_f1, standard_error

rng = np.random.default_rng(0)
labels = rng.integers(0, 4, 300)
predicted = np.where(rng.random(300) < 0.7, labels, rng.integers(0, 4, 300))
CONFUSION = confusion_matrix(labels, predicted, classes=4)


def test_the_confusion_matrix_counts_pairs() -> None:
    for row in range(4):
        for column in range(4):
            assert CONFUSION[row, column] == np.sum((labels == row) & (predicted == column))


def test_accuracy_is_the_share_of_right_predictions() -> None:
    assert accuracy(CONFUSION) == pytest.approx(float(np.mean(labels == predicted)))


def test_macro_f1_is_the_mean_harmonic_mean_of_precision_and_recall() -> None:
    scores = []
    for label in range(4):
        hits = np.sum((labels == label) & (predicted == label))
        precision, recall = hits / np.sum(predicted == label), hits / np.sum(labels == label)
        scores.append(2 * precision * recall / (precision + recall))
    assert macro_f1(CONFUSION) == pytest.approx(float(np.mean(scores)))


def test_macro_f1_leaves_out_classes_that_do_not_occur() -> None:
    confusion = np.array([[2, 0, 0], [0, 3, 0], [0, 0, 0]])
    assert macro_f1(confusion) == 1.0


def test_macro_f1_counts_a_class_that_is_only_predicted_as_zero() -> None:
    # class 0: 2 hits, 1 missed: 4/5; class 1: never right: 0
    assert macro_f1(np.array([[2, 1], [0, 0]])) == pytest.approx((4 / 5 + 0) / 2)


def test_the_standard_error_of_accuracy_is_the_binomial_one() -> None:
    p, n = accuracy(CONFUSION), int(CONFUSION.sum())
    assert standard_error(accuracy, CONFUSION) == pytest.approx(sqrt(p * (1 - p) / (n - 1)))


@pytest.mark.parametrize("name", METRICS)
def test_the_standard_error_is_the_jackknife_over_single_documents(name: str) -> None:
    metric, n = METRICS[name], len(labels)
    values = [
        metric(confusion_matrix(np.delete(labels, index), np.delete(predicted, index), classes=4)) for index in range(n)
    ]
    assert standard_error(metric, CONFUSION) == pytest.approx(
        sqrt((n - 1) / n * np.sum((values - np.mean(values)) ** 2))
    )


def test_one_document_has_no_spread() -> None:
    assert standard_error(accuracy, np.array([[1, 0], [0, 0]])) == 0.0


@pytest.mark.parametrize("name", METRICS)
def test_perfect_predictions_score_one_without_error(name: str) -> None:
    confusion = confusion_matrix(labels, labels, classes=4)
    assert METRICS[name](confusion) == 1.0
    assert standard_error(METRICS[name], confusion) == 0.0
