"""The benchmark of training with rounded weights: equal steps for all ways, and errors over seeds and documents."""

import copy
from statistics import stdev
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import quantization_aware as benchmark
from benchmarks.quantization_aware import (
    ALONE,
    BEFORE,
    FLOATS,
    LEVELS,
    Setting,
    Trained,
    Trainer,
    report,
    settings,
)
from tests.compression.training_data import context_for
from tests.conftest import tiny_model


def trained(way, seed, hits):
    return Trained(Setting(2, "nearest", way, seed, 150), hits, 0.5, 0.02, 1.0)


def test_every_seed_has_every_way_of_every_cell_before_the_next_begins():
    found = settings(quick=False, steps=150)
    assert len(set(found)) == len(found) == 3 * 4 * 4
    assert [setting.seed for setting in found] == sorted(setting.seed for setting in found)
    assert {setting.steps for setting in found} == {150}


def test_the_table_pairs_documents_with_the_teacher(capsys):
    teacher = np.array([100.0, 100.0, 100.0, 0.0])
    rows = report([trained(ALONE, 0, "1000"), trained(FLOATS, 0, "1101"), trained(ALONE, 1, "1100")], teacher)
    assert [(row["way"], row["seeds"]) for row in rows] == [(ALONE, 2), (FLOATS, 1)]
    assert rows[0]["lost"] == (37.5, pytest.approx(stdev([50.0, 25.0]) / 2**0.5, abs=1e-3))
    assert rows[0]["over_documents"] == pytest.approx(stdev([0.0, 50.0, 100.0, 0.0]) / 2, abs=1e-3)
    assert rows[1]["lost"][0] == 0.0
    assert "W2 nearest" in capsys.readouterr().out


@pytest.fixture
def trainer(monkeypatch):
    """Of a random teacher that is trained on its own logits; 'scores' are the students themselves."""
    model = tiny_model("bert")
    task = SimpleNamespace(dataset=SimpleNamespace(train=range(8), classes=range(3)))
    made = Trainer(SimpleNamespace(name="tiny", model=model, task=task))
    made.context = context_for(model)
    monkeypatch.setattr(benchmark, "score", lambda student, tutored: (copy.deepcopy(student.state_dict()), 0.0))
    return made


def test_floats_are_distilled_once_a_seed_whatever_they_are_rounded_to(trainer):
    first, second = (trainer(Setting(2, rounding, BEFORE, 0, 3)).hits for rounding in ("nearest", "optq"))
    norm = "bert.encoder.layer.0.output.LayerNorm.weight"
    assert torch.equal(first[norm], second[norm])
    assert not torch.equal(first[norm], trainer(Setting(2, "nearest", BEFORE, 1, 3)).hits[norm])
    assert not torch.equal(first[norm], trainer(Setting(2, "nearest", ALONE, 0, 3)).hits[norm])


def test_only_training_with_rounded_weights_moves_levels(trainer):
    moved = {way: trainer(Setting(2, "nearest", way, 0, 3)).moved for way in (ALONE, BEFORE, LEVELS, FLOATS)}
    assert moved[ALONE] == moved[BEFORE] == 0.0
    assert moved[FLOATS] > moved[LEVELS]
