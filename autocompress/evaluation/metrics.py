"""How good predictions are, as functions of the confusion matrix, with their standard error."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Confusion: TypeAlias = npt.NDArray[np.int64]
"""(classes x classes): documents of class ``row`` that were predicted to be of class ``column``."""
Metric: TypeAlias = Callable[[Confusion], float]
"""Confusion matrix -> 0 (worst) to 1 (best)."""


def confusion_matrix(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], *, classes: int) -> Confusion:
    """Count the documents of each class by what they were predicted to be; both arrays are (documents,)."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def accuracy(confusion: Confusion) -> float:
    """Share of the documents that were predicted right."""
    return float(np.trace(confusion) / confusion.sum())


def macro_f1(confusion: Confusion) -> float:
    """Mean over the classes of 2 TP / (2 TP + FP + FN); classes that neither occur nor are predicted do not count."""
    hits, total = np.diag(confusion), confusion.sum(axis=0) + confusion.sum(axis=1)
    seen = total > 0
    return float(np.mean(2 * hits[seen] / total[seen]))


METRICS: dict[str, Metric] = {"accuracy": accuracy, "macro_f1": macro_f1}
"""Name in the configuration -> metric."""


def standard_error(metric: Metric, confusion: Confusion) -> float:
    """Return the metric's standard error over draws of as many documents, by the delete-one jackknife.

    Documents in one cell of the matrix are alike, so each cell is recomputed once and weighted by its count. For
    accuracy p over n documents this is sqrt(p (1 - p) / (n - 1)). Zero for a single document.

    Source: Efron and Stein, The jackknife estimate of variance, 1981, eq. 1.2.
    """
    documents = int(confusion.sum())
    if documents < 2:
        return 0.0
    cells = np.argwhere(confusion > 0)
    counts = confusion[cells[:, 0], cells[:, 1]]
    values = np.empty(len(cells))
    for index, (row, column) in enumerate(cells):
        left = confusion.copy()
        left[row, column] -= 1
        values[index] = metric(left)
    mean = float(counts @ values) / documents
    return sqrt((documents - 1) / documents * float(counts @ (values - mean) ** 2))
