from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from autocompress.config import load_config
from autocompress.pipeline.candidates import Students, space_of
from autocompress.pipeline.sensitivities import BATCH, documents, largest, measure, untrained
from autocompress.pipeline.teacher import load_teacher

SPACE = [
    *("search.space.depth=[1,2]", "search.space.heads_keep=[0.5,1.0]", "search.space.ffn_keep=[0.25,1.0]"),
    *("search.space.attention_bits=[32]", "search.space.ffn_bits=[32,4]", "search.space.embedding_bits=[32]"),
    *("search.space.vocabulary_keep=[0.7,1.0]", "search.space.vocabulary_coverage=0.5"),
]


@pytest.fixture(scope="module")
def asked(world):
    config = load_config(world.run_file, ["model.finetune.epochs=2", *SPACE])
    teacher = load_teacher(config)
    students = Students(teacher, batch_size=16, seed=0, coverage=0.5)
    return students, students.informed(space_of(config, teacher.shape))


def test_each_choice_is_measured_alone_on_the_same_documents(asked):
    students, space = asked
    found = measure(students, space, seed=0)
    base = largest(space)
    assert found.base == base and found.nats.keys() == base.keys() - {
        *("depth_selection", "heads_order", "neurons_order", "allocation", "repair", "recipe"),
        *("rounding", "bits_allocation", "activations", "weight_group", "zero_points"),
    }
    assert all(found.nats[name][value] == 0 for name, value in base.items() if name in found.nats)
    start = students.start
    for name, value in {"depth": 1, "ffn_bits": 4, "vocabulary_keep": 0.7}.items():
        plan = untrained(space, start.shape, {**base, name: value})
        assert "distill" not in {step.method for step in plan.steps}
        student, task = students.make(plan), students.task(plan)
        losses = []
        for dense, cut in zip(documents(start.task, 0), documents(task, 0), strict=True):
            assert dense.indices.equal(cut.indices)
            with torch.no_grad():
                teacher, given = (
                    model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.double().softmax(-1)
                    for model, batch in ((start.model, dense), (student, cut))
                )
            losses += functional.kl_div(given.log(), teacher, reduction="none").sum(-1).tolist()
        assert found.nats[name][value] == pytest.approx(sum(losses) / len(losses), abs=1e-9)
    assert found.of({"depth": 1, "ffn_bits": 4, "repair": "none"}) == pytest.approx(
        found.nats["depth"][1] + found.nats["ffn_bits"][4]
    )


def test_what_was_measured_is_never_measured_again_whatever_else_the_space_has(asked, monkeypatch):
    students, space = asked
    found = measure(students, space, seed=0)
    monkeypatch.setattr(students, "make", None)
    assert (
        measure(students, replace(space, depth=(2,), ffn_bits=(32, 4)), seed=0).nats["ffn_bits"]
        == found.nats["ffn_bits"]
    )


def test_documents_are_of_the_validation_split_and_depend_on_the_seed(asked):
    task = asked[0].start.task
    first, again, other = (torch.cat([batch.indices for batch in documents(task, seed)]) for seed in (0, 0, 1))
    assert first.equal(again) and not first.equal(other)
    assert len(first) == len(task.dataset.validation)
    assert all(len(batch.indices) <= BATCH for batch in documents(task, 0))
