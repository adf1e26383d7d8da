"""Finalists: refined students, their artifacts, and what these measure and score."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from safetensors.torch import load_file, save
from torch import nn

from autocompress.compiler.build import Container, build
from autocompress.compression.distillation import DistillStep
from autocompress.compression.methods import read_plan
from autocompress.compression.quantization import QuantizeStep
from autocompress.compression.quantization_aware import QuantizationAwareStep
from autocompress.config import RunConfig
from autocompress.cost import Artifact, Failure, Measurement
from autocompress.devices.profile import DeviceProfile
from autocompress.engines import open_artifact
from autocompress.errors import DeviceError
from autocompress.evaluation.task import Answers, Score, Task, predict_with
from autocompress.export.parity import Parity, Tolerance, allow_bf16, allow_flips, compare
from autocompress.models.load import adapter_of
from autocompress.pipeline.bench import refuse_mixing
from autocompress.pipeline.candidates import Students
from autocompress.pipeline.known import HOST
from autocompress.pipeline.workspace import Workspace
from autocompress.plan import CompressionPlan
from autocompress.profiling.runner import Runner, measure_alternating
from autocompress.profiling.timing import Timing
from autocompress.training.batches import arrays_of
from autocompress.training.checkpoint import Checkpoint

PARITY_INPUTS = 32
ROUNDS = 3
"""Times that each artifact is measured in turn with the others, each time in a fresh process."""
CAP_S = 1.0
"""Seconds of timing in each of these rounds."""
EVALUATION_THREADS = 1
"""TVM's thread pool may have been started with one by the compiler."""


@dataclass(frozen=True)
class Made:
    """A student that is finished, and the artifact made of it for the device's engine.

    Attributes:
        name: In tables.
        plan: How it was made of the start; empty for the teacher itself.
        student: The torch module.
        task: As the student reads it.
        validation: Its metric on all validation documents (0 to 1).
        artifact: For the device's engine.
        finalist: Whether it may be delivered; teacher and alternatives are there to be compared with.
    """

    name: str
    plan: CompressionPlan
    student: nn.Module
    task: Task
    validation: float
    artifact: Artifact
    finalist: bool


TEACHER = "teacher"
FEW_BITS = 4
"""From here on down rounding loses what training can win back (decision 0012)."""


def refined(plan: CompressionPlan, steps: int, aware: QuantizationAwareStep | None = None) -> CompressionPlan:
    """Return ``plan`` with the full recipe's training: so many steps, and ``aware`` where weights have ``FEW_BITS``."""
    kept = [
        replace(step, steps=steps) if isinstance(step, DistillStep) else step
        for step in plan.steps
        if not isinstance(step, QuantizationAwareStep)
    ]
    rounded = [step for step in kept if isinstance(step, QuantizeStep)]
    few = any(min((*step.linear_bits, step.embedding_bits, step.head_bits)) <= FEW_BITS for step in rounded)
    return CompressionPlan((*kept, aware) if few and aware and aware.steps else tuple(kept))


def make(
    name: str,
    plan: CompressionPlan,
    *,
    config: RunConfig,
    students: Students,
    workspace: Workspace,
    target: Mapping[str, object] | None,
    container: Container,
    finalist: bool,
) -> Made:
    """Train the student of ``plan`` (or go on where an interrupted run was, or read it back) and build its artifact.

    Args:
        name: In tables.
        plan: What to do to the start.
        config: Of the run.
        students: Makes the student.
        workspace: Keeps it.
        target: What to compile for; ``None`` is this machine.
        container: What a library is written as.
        finalist: Whether it may be delivered.

    Returns:
        With the plan as it was carried out: without quantization-aware training, if that did harm.
    """
    task = students.task(plan)
    # What a student has learnt is worth nothing with other feeds, and of near ties another may be kept elsewhere.
    decisive = [plan.to_json(), students.start.fingerprint, task.encoding]
    key = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]
    weights, note = (workspace.students / f"{key}{suffix}" for suffix in (".safetensors", ".json"))
    checkpoint = Checkpoint(workspace.students / f"{key}.training")
    if note.is_file() and weights.is_file():
        told = json.loads(note.read_text())
        student = students.make(refined(plan, 0))
        student.load_state_dict(load_file(weights))
        plan, validation = read_plan(told["plan"]), float(told["validation"])
    else:
        plan, student, validation = _trained(plan, students, task, checkpoint, stage=f"refine {name}")
        weights.write_bytes(save({key: tensor.contiguous() for key, tensor in student.state_dict().items()}))
        # The note comes last: where it is, the weights are whole.
        note.write_text(json.dumps({"name": name, "validation": validation, "plan": plan.to_json()}) + "\n")
    checkpoint.discard()
    stem, tokens = workspace.artifacts / key, config.task.max_tokens
    artifact = export(student, stem, config.device.engine, tokens, target, container)
    return Made(name, plan, student, task, validation, artifact, finalist)


def _trained(
    plan: CompressionPlan, students: Students, task: Task, checkpoint: Checkpoint, *, stage: str
) -> tuple[CompressionPlan, nn.Module, float]:
    """Return the student of ``plan`` with its metric on validation documents.

    Where quantization-aware training made that worse, it is the student without, and its plan.
    """

    def one(plan: CompressionPlan) -> tuple[CompressionPlan, nn.Module, float]:
        student = students.make(plan, stage=stage, checkpoint=checkpoint)
        return plan, student, task.evaluate(predict_with(student), "validation").value

    without = CompressionPlan(tuple(step for step in plan.steps if not isinstance(step, QuantizationAwareStep)))
    found = [one(each) for each in dict.fromkeys((plan, without))]
    return max(found, key=lambda each: each[2])  # Of equals the first.


def export(
    student: nn.Module,
    stem: Path,
    engine: str,
    tokens: int,
    target: Mapping[str, object] | None = None,
    container: Container = "so",
) -> Artifact:
    """Build the artifact of a student."""
    adapter = adapter_of(student)
    shape, weights = adapter.shape(student), adapter.weights(student)
    return build(shape, weights, stem, engine=engine, tokens=tokens, target=target, container=container)


def measure(
    made: Sequence[Made], runner: Runner, profile: DeviceProfile, *, threads: int, vocabulary: int
) -> dict[str, Measurement]:
    """Measure all in turn on the device of ``profile``, to which ``runner`` leads; ids are below ``vocabulary``.

    Raises:
        DeviceError: One of them does not run, the device cannot be reached, or is emulated although its profile says
            that it is real.
    """
    artifacts, timing = {item.name: item.artifact for item in made}, Timing(threads, vocabulary, cap_s=CAP_S)
    date = datetime.now(UTC).isoformat("T", "seconds")
    results = measure_alternating(runner, artifacts, timing, rounds=ROUNDS, provenance={"date": date})
    return {name: _measured(name, result, profile) for name, result in results.items()}


def _measured(name: str, result: Measurement | Failure, profile: DeviceProfile) -> Measurement:
    if isinstance(result, Failure):
        where, look = "this machine", "doctor"
        if profile.name != HOST:
            where, look = f"the board {profile.name}", f"device probe {profile.name}"
        raise DeviceError(
            f"The artifact of {name} does not run on {where} ({result.reason}).",
            right="It runs as it did when the device was profiled.",
            next_step=f"Free memory there; autocompress {look} shows the engines.",
        )
    refuse_mixing(profile, result)
    return result


def answers(artifact: Artifact, task: Task) -> Answers:
    """Return what an artifact answers to the test documents, one at a time, as a device gets them."""
    run = open_artifact(artifact, threads=EVALUATION_THREADS)
    return task.answers(run, "test", batch_size=1)


def parity(made: Made, artifact: Artifact, config: RunConfig, artifact_score: Score) -> Parity:
    """Compare an artifact with its student on test documents."""
    task = made.task
    # A compiled library has one length and pads to it; the student is shown the same padding.
    tokens = artifact.tokens if artifact.engine == "tvm" else None
    batches = task.batches("test", batch_size=1, limit=PARITY_INPUTS, tokens=tokens)
    student = predict_with(made.student)
    asked, shape = config.export.parity, adapter_of(made.student).shape(made.student)
    tolerance = Tolerance(asked.max_abs_logit, asked.metric_drop_points)
    # One at a time too: padding to a batch would move the ranges of quantized activations.
    student_score = task.evaluate(student, "test", batch_size=1, tokens=tokens)
    return compare(
        artifact.engine,
        student,
        open_artifact(artifact, threads=EVALUATION_THREADS),
        [arrays_of(batch) for batch in batches],
        scores=(student_score.value, artifact_score.value),
        tolerance=allow_flips(allow_bf16(tolerance, shape), shape),
    )
