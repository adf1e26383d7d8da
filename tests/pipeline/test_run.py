"""The main job in this process: what it refuses, and that whatever ends it leaves what was there."""

import json
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from autocompress.config import load_config
from autocompress.devices.detect import write_profile
from autocompress.devices.load import load_profile
from autocompress.errors import AutoCompressError, DeviceError, StorageError
from autocompress.pipeline import bench, setting, workspace
from autocompress.pipeline.bench import Bench
from autocompress.pipeline.run import search
from autocompress.pipeline.setting import check
from autocompress.pipeline.status import read_status
from autocompress.profiling.runner import LocalRunner
from autocompress.report.verdict import verdict_text
from autocompress.runtime.session import Session
from autocompress.search import scoring
from autocompress.search.records import records
from autocompress.search.storage import open_study
from autocompress.training.loop import TrainingDivergedError
from tests.cli.world import World
from tests.pipeline.test_calibration import ByFormula

pytestmark = pytest.mark.slow
SMALL = (
    "export.formats=[onnxruntime]",
    "search.baselines=false",
    "search.trials=3",
    "search.finalists=1",
    "budget={size: 0.9x}",
)


def run(world: World, name: str, *overrides: str, resume: bool = False, told=None):
    config = load_config(world.run_file, [*SMALL, f"name={name}", *overrides])
    return search(config, resume=resume, progress=told or (lambda *event: None))


def found(folder: Path, name: str):
    return records(open_study(f"journal:{folder}/study.log", name, resume=True))


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the content of every file but the log of events, which each attempt adds to."""
    return {
        str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "events.jsonl"
    }


@pytest.fixture(scope="module")
def finished(world: World) -> Path:
    """The folder of a run that is finished."""
    assert run(world, "finished").verdict == "pass"
    return world.folder / "runs/finished"


def test_the_stages_follow_each_other_from_their_first_step_to_their_last(world):
    events = []
    run(world, "told", told=lambda stage, done, total, note: events.append((stage, done, total)))
    stages = list(dict.fromkeys(stage for stage, _, _ in events))
    order = [
        "fetch",
        "fine-tune",
        "calibrate",
        "sensitivity",
        "search",
        "distill",
        "refine candidate 1",
        "measure",
        "evaluate",
        "prove",
    ]
    assert stages == order
    for stage in stages:
        *_, (_, done, total) = (event for event in events if event[0] == stage)
        assert done == total
    written = [json.loads(line) for line in (world.folder / "runs/told/events.jsonl").read_text().splitlines()]
    assert [(event["stage"], event["done"], event["total"]) for event in written] == events


def test_whatever_ends_a_search_leaves_the_best_so_far_as_a_package(world):
    def interrupt(stage, done, total, note):
        if stage == "search" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(world, "broken", told=interrupt)
    folder = world.folder / "runs/broken"
    (first,) = [record for record in found(folder, "broken") if record.score is not None][:1]
    manifest = json.loads((folder / "best-so-far/manifest.json").read_text())
    assert manifest["candidate"] == first.number and manifest["verdict"] == "so far"
    assert manifest["score"]["value"] == first.score
    assert Session(folder / "best-so-far").classify(["a cat was seen"])[0].label in ("animal", "plant")
    assert read_status(folder).package == folder / "best-so-far"
    assert run(world, "broken", resume=True).verdict == "pass"
    assert (folder / "best").is_dir() and not (folder / "best-so-far").exists()


def test_only_candidates_that_are_scored_in_full_become_finalists(world, monkeypatch):
    notes = []
    monkeypatch.setattr(scoring, "climbs", lambda candidate, others: len(others) % 2 == 1)
    ladder = ("search.trials=6", "search.rungs=[0]", "search.finalists=6", "search.parallel=1")
    report = run(world, "ladder", *ladder, told=lambda stage, done, total, note: notes.append(note))
    kept = found(world.folder / "runs/ladder", "ladder")
    stopped = {record.number for record in kept if record.state == "stopped"}
    assert stopped and len(stopped) + sum(record.state == "scored" for record in kept) == 6
    assert {row.number for row in report.candidates if row.stage == "stopped"} == stopped
    assert not stopped & {row.number for row in report.candidates if row.stage in ("refined", "exported")}
    assert any(f"{len(stopped)} stopped early" in note for note in notes)
    assert any("stopped on rung 1" in note for note in notes)


@pytest.mark.parametrize(
    "change",
    [
        "search.seed=5",
        "search.rungs=[1]",
        "budget={size: 0.8x}",
        "search.space.heads_keep=[1.0]",
        "task.max_tokens=10",
        "device.threads=2",
    ],
)
def test_another_configuration_is_not_mixed_in_and_changes_no_file(world, finished, change):
    before = snapshot(finished)
    with pytest.raises(StorageError, match="another configuration"):
        run(world, "finished", change, resume=True)
    assert snapshot(finished) == before


def test_a_finished_run_that_is_not_resumed_is_left_as_it_is(world, finished):
    before = snapshot(finished)
    with pytest.raises(StorageError, match="already has a study"):
        run(world, "finished")
    assert snapshot(finished) == before


def test_more_trials_can_be_added_to_a_finished_run(world, finished):
    shutil.copytree(finished, world.folder / "runs/kept")
    before = found(finished, "finished")
    run(world, "finished", "search.trials=5", resume=True)
    after = found(finished, "finished")
    assert after[: len(before)] == before and len([r for r in after if r.state == "scored"]) >= 5
    assert load_config(finished / "run.yaml").search.trials == 5
    shutil.rmtree(finished)
    (world.folder / "runs/kept").rename(finished)


def test_what_another_run_teaches_the_devices_predictor_does_not_part_a_run_from_its_candidates(world, finished):
    """Longer inputs are measured and the shared predictor is fitted anew; relative limits would move with it."""
    shared = world.folder / "home/latency_models/host-onnxruntime-1t.json"
    before = shared.read_bytes()
    assert check(load_config(world.run_file, [*SMALL, "task.max_tokens=20"])).feasible
    assert shared.read_bytes() != before
    scored = found(finished, "finished")
    assert run(world, "finished", resume=True).verdict == "pass"
    assert found(finished, "finished") == scored


def test_after_an_impossible_budget_a_possible_one_may_follow_under_the_same_name(world):
    impossible = run(world, "raised", "budget={size: 1 KB}")
    assert impossible.verdict == "infeasible"
    folder = world.folder / "runs/raised"
    assert (folder / "closest/model.onnx").is_file() and not (folder / "best").exists()
    assert "size on disk" in impossible.blocked and "size on disk from" in impossible.reachable
    assert run(world, "raised").verdict == "pass"
    assert (folder / "best/model.onnx").is_file() and (folder / "closest/model.onnx").is_file()


def test_an_artifact_that_crashes_when_it_is_measured_is_a_device_error_and_the_run_goes_on_later(
    world, finished, monkeypatch
):
    """The worker really dies of a signal."""
    before, scored = snapshot(finished / "best"), found(finished, "finished")
    crash = (sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with monkeypatch.context() as patch:
        patch.setattr(bench, "LocalRunner", lambda device: LocalRunner(device, command=crash))
        with pytest.raises(DeviceError, match="crash: SIGSEGV") as caught:
            run(world, "finished", resume=True)
    assert caught.value.exit_code == 4 and "teacher" in caught.value.wrong
    assert snapshot(finished / "best") == before
    trained = []
    report = run(world, "finished", resume=True, told=lambda stage, *event: trained.append(stage))
    assert report.verdict == "pass" and "distill" not in trained and "refine candidate 1" not in trained
    assert found(finished, "finished") == scored


def test_a_board_that_is_not_there_gets_an_estimated_package_with_nothing_measured(world):
    report = run(world, "board", "device.profile=raspberry-pi-4")
    assert report.verdict == "estimated"
    assert not report.predictor.calibrated
    assert all(row.measured is None for row in report.limits)
    manifest = json.loads((world.folder / "runs/board/best/manifest.json").read_text())
    assert manifest["measured"] == {} and manifest["predicted"]["calibrated"] is False
    assert [parity["passed"] for parity in manifest["parity"]] == [True]  # an ONNX model runs here too


@pytest.fixture
def emulated(world, monkeypatch):
    """A board that was added and answers; what it measures, a formula says in the name of an emulator."""
    profile = load_profile("raspberry-pi-4").model_copy(update={"name": "emulated-board", "emulated": "qemu-aarch64"})
    write_profile(profile, world.folder / "home/device_profiles")

    class Emulated(ByFormula):
        def run(self, artifact, timing, *, provenance):
            facts = {**provenance, "emulated": "qemu-aarch64"}
            return super().run(artifact, timing, provenance=facts)

    @contextmanager
    def reach_device(profile, **_):
        yield Bench(Emulated(profile.name), profile.tvm_target)

    for room in (bench, setting):
        monkeypatch.setattr(room, "reach_device", reach_device)
    monkeypatch.setattr(setting, "answers", lambda profile: True)


def test_what_an_emulator_measures_is_shown_as_emulated_and_never_passes(world, emulated):
    report = run(world, "emulated", "device.profile=emulated-board")
    assert report.verdict == "estimated" and report.emulated == "qemu-aarch64"
    assert all(row.measured is not None for row in report.limits)
    assert {row.role for row in report.baselines} == {"teacher", "student"}
    text = verdict_text(report)
    assert "ESTIMATED" in text and "emulated by qemu-aarch64" in text and "measured" not in text
    manifest = json.loads((world.folder / "runs/emulated/best/manifest.json").read_text())
    (kept,) = manifest["measured"].values()
    assert manifest["verdict"] == "estimated" and kept["provenance"]["emulated"] == "qemu-aarch64"


@pytest.mark.parametrize(
    ("stage", "done"), [("fetch", 0), ("search", 1), ("refine candidate 1", 8), ("measure", 0), ("prove", 1)]
)
def test_a_disk_that_fills_up_ends_the_run_and_loses_nothing_that_was_finished(
    world, finished, disk, monkeypatch, stage, done
):
    def told(*event) -> None:
        if event[:2] == (stage, done):
            disk.fill()

    monkeypatch.setattr(workspace, "FREE_BYTES", 0)
    with pytest.raises((AutoCompressError, OSError), match="No space left") as caught:
        run(world, "full", f"runs_folder={disk.folder}", told=told)
    assert not isinstance(caught.value, AutoCompressError) or caught.value.exit_code == 2
    disk.resize(2**26)
    folder = disk.folder / "full"
    before = [record for record in found(folder, "full") if record.state != "failed"]
    assert run(world, "full", f"runs_folder={disk.folder}", resume=True).verdict == "pass"
    after = found(folder, "full")
    assert after[: len(before)] == before
    assert [record.params for record in after] == [record.params for record in found(finished, "finished")]
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_for_fidelity_students_are_held_against_the_teachers_answers_and_both_are_told(world):
    report = run(world, "faithful", "goal.objective=fidelity", "goal.max_drop=100 points", "search.baselines=true")
    goal = report.goal
    assert goal.metric == "agreement with the teacher" and goal.teacher == 1.0
    rows = {row.role: row for row in report.baselines}
    assert rows["teacher"].agreement == 1.0
    assert rows["student"].agreement == goal.student
    # Labels of test documents stay what they were: the teacher is not always right.
    plain = run(world, "plain", "goal.max_drop=100 points").only("teacher")
    assert rows["teacher"].score == plain.score and plain.agreement == 1.0


def test_candidates_that_diverge_are_failed_ones_with_the_step_and_the_search_goes_on(world):
    """At such a rate the first update makes weights of 1e30, and the second loss is no number."""
    with pytest.raises(TrainingDivergedError, match="diverged in step"):
        run(world, "diverging", "search.learning_rate=1e30", "search.trials=2")
    tried = [record for record in found(world.folder / "runs/diverging", "diverging") if record.state != "over budget"]
    assert len(tried) > 2 and {record.state for record in tried} == {"failed"}
    assert all(re.match(r"TrainingDivergedError: Training diverged in step [2-4]:", record.reason) for record in tried)
