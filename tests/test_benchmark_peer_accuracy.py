import numpy as np
import pytest
import torch

from autocompress.cost import Artifact
from autocompress.engines import ENGINES
from autocompress.feeds import of_text
from benchmarks.peer_accuracy import best, described
from benchmarks.peers import PRODUCTS, Subject, export, round_dynamic, round_static, silenced
from tests.test_benchmarks import tiny_bert

DOCUMENTS = [(np.arange(1, 1 + size)[None], np.ones((1, size), np.int64)) for size in (3, 5, 8)]


@pytest.fixture
def subject(tmp_path):
    return Subject(tiny_bert(), 8, tmp_path, DOCUMENTS)


def test_a_model_with_documents_is_exported_for_any_length(subject):
    with silenced():
        artifact = export(subject)
    run = ENGINES[artifact.engine](artifact, threads=1)
    for ids, mask in DOCUMENTS:
        with torch.inference_mode():
            expected = subject.model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits
        np.testing.assert_allclose(run(of_text(ids, mask)), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("ranges", ["MinMax", "Percentile"])
def test_static_ranges_are_those_of_the_documents_and_serve_any_length(subject, ranges):
    with silenced():
        artifacts = [export(subject), round_dynamic(subject), round_static(subject, operators=PRODUCTS, ranges=ranges)]
    floats, *rounded = (ENGINES[each.engine](each, threads=1) for each in artifacts)
    for ids, mask in DOCUMENTS:
        expected = floats(of_text(ids, mask))
        for run in rounded:
            assert 0 < np.abs(run(of_text(ids, mask)) - expected).max() < 0.2 * np.abs(expected).max()


def test_points_are_lost_against_the_teacher_with_the_error_of_paired_documents(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"0" * 1_500_000)
    teacher, right = np.array([1.0, 1, 1, 0]), np.array([1.0, 0, 1, 0])
    row = described("task", "name", 8, teacher, right, Artifact(path, "onnxruntime", 8))
    assert (row["accuracy"], row["loss"], row["megabytes"]) == (50.0, 25.0, 1.5)
    # Differences 0, 100, 0, 0: their standard deviation is 50, of four documents.
    assert row["error"] == 25.0


def test_the_best_of_ours_and_of_the_peers_are_told_by_task():
    rows = [
        {"task": "a", "bits": bits, "name": name, "loss": loss}
        for bits, name, loss in [
            (8, "autocompress x", 0.4),
            (8, "autocompress y", 0.2),
            (8, "nncf", 0.3),
            (4, "autocompress x", 0.1),
        ]
    ]
    assert best(rows, 8) == {"a": {"ours": 0.2, "peers": 0.3}}
    assert best(rows, 4) == {"a": {"ours": 0.1}}
