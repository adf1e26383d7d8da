import copy
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from autocompress.compression.methods import draw
from autocompress.compression.quantization_aware import QuantizationAwareStep
from autocompress.config import load_config
from autocompress.cost import Artifact, Failure, Measurement
from autocompress.devices.load import load_profile
from autocompress.engines import open_artifact
from autocompress.errors import DeviceError
from autocompress.evaluation.task import predict_with
from autocompress.pipeline import finalists
from autocompress.pipeline.candidates import Students, space_of
from autocompress.pipeline.teacher import load_teacher
from autocompress.pipeline.workspace import Workspace
from autocompress.plan import Chosen, CompressionPlan
from autocompress.training.batches import arrays_of
from autocompress.training.checkpoint import Checkpoint
from tests.pipeline import one_finalist
from tests.pipeline.one_finalist import AWARE_STEPS, STEPS

ROOT = Path(__file__).parents[2]
PARAMS = {"depth": 2, "heads_keep": 0.5, "ffn_keep": 0.5, "attention_bits": 8, "ffn_bits": 4, "embedding_bits": 8,
          "vocabulary_keep": 1.0, "embedding_rank": 0}  # fmt: skip
AWARE = QuantizationAwareStep(3, 1e-3, seed=0)


@pytest.fixture(scope="module")
def setting(world):
    config = load_config(world.run_file)
    return config, load_teacher(config)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    made = Workspace(tmp_path / "run")
    made.create()
    return made


def make(setting, workspace, trained: list, aware: QuantizationAwareStep | None = None, **changes):
    """Make a finalist with nothing in memory, as a resumed process does; each training step is noted."""
    config, teacher = setting
    students = Students(teacher, batch_size=16, seed=0, progress=lambda *event: trained.append(event))
    plan = draw(Chosen({**PARAMS, **changes}), teacher.shape, space_of(config, teacher.shape))
    return finalists.make(
        "candidate 1",
        finalists.refined(plan, config.search.refine_steps, aware),
        config=config,
        students=students,
        workspace=workspace,
        target=None,
        container="so",
        finalist=True,
    )


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_finished_student_is_read_back_equal_and_not_trained_again(setting, workspace):
    first_steps, second_steps = [], []
    first = make(setting, workspace, first_steps)
    content = first.artifact.path.read_bytes()
    again = make(setting, workspace, second_steps)
    assert first_steps and not second_steps
    assert same(first.student, again.student)
    assert (again.validation, again.plan, again.artifact) == (first.validation, first.plan, first.artifact)
    assert again.artifact.path.read_bytes() == content


def test_a_student_that_was_trained_with_rounded_weights_is_read_back_equal(setting, workspace):
    steps, again_steps = [], []
    first = make(setting, workspace, steps, AWARE)
    assert first.plan.steps[-1] == AWARE
    assert [event[1:3] for event in steps][-1] == (AWARE.steps, AWARE.steps)
    again = make(setting, workspace, again_steps, AWARE)
    assert steps and not again_steps
    assert same(first.student, again.student)
    assert (again.plan, again.validation) == (first.plan, first.validation)
    assert not same(first.student, make(setting, workspace, []).student)


class Interruption(BaseException):
    """What ends a process, as abruptly as a signal."""


class Interrupting(list):
    """Notes training steps, and ends the process at one of them."""

    def append(self, event):
        super().append(event)
        if len(self) == self.after:
            raise Interruption


@pytest.mark.parametrize("after", [5, 10], ids=["while it learns", "while it learns with rounded weights"])
def test_a_training_that_was_interrupted_goes_on_inside_and_ends_with_the_same_student(
    setting, workspace, tmp_path, monkeypatch, after
):
    monkeypatch.setattr(finalists, "Checkpoint", partial(Checkpoint, seconds=0.0))
    config, _ = setting
    total = config.search.refine_steps + AWARE.steps
    assert config.search.refine_steps == 8 and AWARE.steps == 3
    first, second = Interrupting(), []
    first.after = after
    with pytest.raises(Interruption):
        make(setting, workspace, first, AWARE)
    again = make(setting, workspace, second, AWARE)
    assert len(second) == total - after
    assert sorted(path.suffix for path in workspace.students.iterdir()) == [".json", ".onnx", ".safetensors"]
    whole = Workspace(tmp_path / "whole")
    whole.create()
    expected = make(setting, whole, [], AWARE)
    assert same(again.student, expected.student) and again.plan == expected.plan


@pytest.mark.slow
def test_kill_minus_nine_in_either_training_of_a_finalist_changes_no_bit(setting, world, monkeypatch, capsys):
    """This process runs through; real ones are killed while they learn, and while they learn with rounded weights."""

    def run(kill_at: int | None = None) -> list[str]:
        command = [sys.executable, "-m", "tests.pipeline.one_finalist", str(world.folder), "killed"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        told = []
        with subprocess.Popen(
            [*command, "0.02" if kill_at else "0"], stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            for line in process.stdout:
                told.append(line.strip())
                if len(told) == kill_at:
                    process.kill()
                    break
        assert process.returncode == (-signal.SIGKILL if kill_at else 0)
        return told

    monkeypatch.setattr(finalists, "Checkpoint", Checkpoint)  # Which is put back afterwards.
    one_finalist.main(world.folder, "whole", pause_s=0.0)
    whole = capsys.readouterr().out.splitlines()
    killed = [*run(kill_at=STEPS // 2), *run(kill_at=STEPS // 2 + AWARE_STEPS // 2), *run()]
    assert STEPS + AWARE_STEPS <= killed.count("step") <= STEPS + AWARE_STEPS + 2  # A step in hand may be lost twice.
    assert killed[-1] == whole[-1]


def test_training_that_does_harm_on_validation_documents_is_undone(setting, workspace):
    """At such a rate the student forgets everything; what was read back says so too."""
    ruinous = replace(AWARE, learning_rate=0.3)
    plain = make(setting, workspace, [])
    kept = make(setting, workspace, [], ruinous)
    assert plain.validation > 0.6  # or there would be nothing to lose
    assert same(kept.student, plain.student)
    assert (kept.validation, kept.plan) == (plain.validation, plain.plan)
    steps = []
    assert make(setting, workspace, steps, ruinous).plan == plain.plan
    assert not steps


def test_another_plan_is_another_student(setting, workspace):
    make(setting, workspace, [])
    steps = []
    make(setting, workspace, steps, depth=1)
    assert steps


@pytest.mark.parametrize("content", [b"half of the wei", None], ids=["cut off", "whole"])
def test_weights_that_were_never_confirmed_are_made_again(setting, workspace, content):
    first = make(setting, workspace, [])
    (note,) = workspace.students.glob("*.json")
    note.unlink()
    if content is not None:
        note.with_suffix(".safetensors").write_bytes(content)
    steps = []
    assert same(make(setting, workspace, steps).student, first.student)
    assert steps


def test_a_full_disk_leaves_no_student_that_counts_as_finished(setting, workspace, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            make(setting, workspace, [])
    assert not list(workspace.students.glob("*.json"))


def test_the_artifact_computes_what_the_student_computes(setting, workspace):
    _, teacher = setting
    made = make(setting, workspace, [])
    run, student = open_artifact(made.artifact, threads=1), predict_with(made.student)
    for batch in teacher.task.batches("test", batch_size=1, limit=8):
        given = arrays_of(batch)
        np.testing.assert_allclose(run(given), student(given), atol=1e-3)


def test_the_validation_score_is_that_of_the_student_on_all_validation_documents(setting, workspace):
    _, teacher = setting
    made = make(setting, workspace, [])
    assert made.validation == teacher.task.evaluate(predict_with(made.student), "validation").value


def test_the_parity_gate_is_shown_the_artifact_itself(setting, workspace):
    config, teacher = setting
    made = make(setting, workspace, [])
    score = teacher.task.judge(finalists.answers(made.artifact, teacher.task), "test")
    found = finalists.parity(made, made.artifact, config, score)
    assert found.passed and found.inputs == min(finalists.PARITY_INPUTS, len(teacher.task.dataset.test))
    assert found.student_score == found.artifact_score == score.value
    shifted = copy.deepcopy(made.student)
    with torch.no_grad():
        shifted.classifier.bias[0] += 2 * found.logit_tolerance
    wrong = finalists.export(shifted, workspace.students / "wrong", "onnxruntime", config.task.max_tokens)
    refused = finalists.parity(made, wrong, config, score)
    assert not refused.passed
    assert refused.max_abs_logit_diff == pytest.approx(2 * found.logit_tolerance, rel=0.05)


def test_refining_leaves_the_teacher_and_the_empty_plan_alone(setting):
    assert finalists.refined(CompressionPlan(), 10) == CompressionPlan()


class Scripted:
    """A runner that notes what it is asked, and answers with what it is given for the artifact."""

    def __init__(self, device: str, **answers: float | Failure) -> None:
        self.device, self.answers, self.asked, self.emulated = device, answers, [], ""

    def run(self, artifact, timing, *, provenance=None):
        name = artifact.path.stem
        self.asked.append((name, timing.threads, timing.vocabulary))
        answer = self.answers[name]
        if isinstance(answer, Failure):
            return answer
        facts = {"reference_ms": "1.0", **provenance} | ({"emulated": self.emulated} if self.emulated else {})
        return Measurement((answer,) * 5, 10, 5, 3, self.device, artifact.engine, timing.threads, facts)


def named(tmp_path, *names: str) -> list[finalists.Made]:
    return [
        finalists.Made(
            name, CompressionPlan(), torch.nn.Identity(), None, 0.5, Artifact(tmp_path / name, "tvm", 8), finalist=True
        )
        for name in names
    ]


def measured(made, runner, device="raspberry-pi-4", **changes):
    profile = load_profile(device).model_copy(update=changes)
    return finalists.measure(made, runner, profile, threads=2, vocabulary=60)


def test_all_are_measured_in_turn_on_the_device(tmp_path):
    runner = Scripted("raspberry-pi-4", teacher=9.0, student=3.0)
    found = measured(named(tmp_path, "teacher", "student"), runner)
    assert runner.asked == [("teacher", 2, 60), ("student", 2, 60)] * finalists.ROUNDS
    assert {name: one.latency_p50_ms for name, one in found.items()} == {"teacher": 9.0, "student": 3.0}
    assert all(one.device == "raspberry-pi-4" and one.provenance["date"] for one in found.values())


@pytest.mark.parametrize(
    ("device", "where", "look"),
    [
        ("raspberry-pi-4", "on the board raspberry-pi-4", "device probe raspberry-pi-4"),
        ("host", "this machine", "doctor"),
    ],
)
def test_an_artifact_that_does_not_run_is_an_error_that_names_it_and_the_device(tmp_path, device, where, look):
    runner = Scripted(device, teacher=9.0, student=Failure("crash: SIGILL"))
    with pytest.raises(DeviceError, match="artifact of student .*crash: SIGILL") as caught:
        measured(named(tmp_path, "teacher", "student"), runner, device)
    assert where in caught.value.wrong and look in caught.value.next_step


def test_times_of_an_emulator_are_no_real_boards(tmp_path):
    runner, made = Scripted("raspberry-pi-4", student=3.0), named(tmp_path, "student")
    runner.emulated = "qemu-aarch64"
    with pytest.raises(DeviceError, match="emulated by qemu-aarch64"):
        measured(made, runner)
    assert measured(made, runner, emulated="qemu-aarch64")["student"].provenance["emulated"] == "qemu-aarch64"
