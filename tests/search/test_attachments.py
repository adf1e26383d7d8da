import json

import pytest
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta

from autocompress.search.attachments import attach
from autocompress.search.records import records
from autocompress.search.storage import close, open_study
from tests.search.synthetic import ANCHORS, objective, search


@pytest.fixture(params=["journal:{}/study.log", "sqlite:///{}/study.db"])
def study(request, tmp_path):
    opened = open_study(request.param.format(tmp_path), "run", resume=False)
    search(opened, objective(20.0), trials=3, seed=1, anchors=ANCHORS)
    yield opened
    close(opened)


def of_trial(study, number: int) -> list[dict]:
    """Return what the dashboard shows of a trial (optuna_dashboard.artifact, list_trial_artifacts)."""
    trial = study.get_trials(deepcopy=False)[number]
    attributes = study._storage.get_study_system_attrs(study._study_id)
    ours = [key for key in attributes if key.startswith(f"dashboard:artifacts:{trial._trial_id}:")]
    return [found for key in ours if (found := json.loads(attributes[key])) is not None]


def test_files_are_found_by_what_is_shown_and_a_later_delivery_takes_the_place_of_an_earlier(study, tmp_path):
    store, page, model = tmp_path / "artifacts", tmp_path / "report.html", tmp_path / "made" / "model.onnx"
    model.parent.mkdir()
    page.write_text("first")
    model.write_bytes(b"weights")
    attach(study, store, [page], {2: [model], 3: [model]})
    page.write_text("second")
    attach(study, store, [page], {3: [model]})
    (report,) = get_all_artifact_meta(study)
    assert (report.filename, report.mimetype) == ("report.html", "text/html")
    reader = FileSystemArtifactStore(store)
    with reader.open_reader(report.artifact_id) as file:
        assert file.read() == b"second"
    assert of_trial(study, 2) == []
    (artifact,) = of_trial(study, 3)
    assert artifact["filename"] == "model.onnx" and not set(artifact["artifact_id"]) - set("0123456789abcdef-")
    with reader.open_reader(artifact["artifact_id"]) as file:
        assert file.read() == b"weights"


def test_constraints_stand_where_the_dashboard_looks_for_them_and_are_told_once(study):
    trials, found = study.get_trials(deepcopy=False), records(study)
    assert any(max(record.violations.values()) > 0 for record in found)
    for record in found:
        assert list(record.violations) == ["latency_p50_ms"]
        assert trials[record.trial].system_attrs["constraints"] == list(record.violations.values())
