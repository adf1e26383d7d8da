"""Trainings that are killed and go on, in processes of their own and in this one."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from autocompress.training import checkpoint as checkpoints
from autocompress.training.checkpoint import Checkpoint
from autocompress.training.loop import cross_entropy, head_rate, train
from tests.conftest import tiny_model
from tests.training.test_loop import learnable_batches

ROOT = Path(__file__).parents[2]
STEPS = 12
PROGRAM = """
import sys, time
from pathlib import Path
from safetensors.torch import save_file
from autocompress.training.checkpoint import Checkpoint
from tests.training.test_checkpoint import fitted
folder, out, pause = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
def slowly(step, steps, loss):
    print(step, flush=True)
    time.sleep(pause)
model, _ = fitted(Checkpoint(folder, 0.0), on_step=slowly)
save_file(dict(model.named_parameters()), out)
"""


class Interruption(BaseException):
    """What ends a training in this process, as abruptly as a signal."""


def fitted(checkpoint=None, *, seed=0, batches=None, steps=STEPS, rate=1e-3, model_seed=0, on_step=None):
    """Return a tiny model that was fitted with dropout, and the losses."""
    model = tiny_model("bert", seed=model_seed)
    log = train(
        model, learnable_batches(STEPS) if batches is None else batches, cross_entropy, learning_rate=rate, steps=steps,
        rate_of=head_rate(20.0), seed=seed, on_step=on_step, checkpoint=checkpoint,
    )  # fmt: skip
    return model, log


def interrupted(checkpoint, *, after, **options):
    def end(step, steps, loss):
        if step == after:
            raise Interruption

    with pytest.raises(Interruption):
        fitted(checkpoint, on_step=end, **options)


def equal(one, other):
    ours, theirs = (dict(model.named_parameters()) for model in (one, other))
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def files(folder):
    return sorted(folder.iterdir()) if folder.exists() else []


def test_kill_minus_nine_in_the_middle_changes_no_bit(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "states"), str(tmp_path / "out")]
    process = subprocess.Popen([*command, "0.05"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.strip() == "5":
            break
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    again = subprocess.run([*command, "0"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 6 <= int(again.stdout.split()[0]) < STEPS
    found = load_file(tmp_path / "out")
    # By the same program: how many threads this process has by now would change sums.
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "others"), str(tmp_path / "whole"), "0"]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    whole = load_file(tmp_path / "whole")
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_losses_are_those_of_the_whole_training(tmp_path):
    interrupted(Checkpoint(tmp_path, 0.0), after=5)
    assert fitted(Checkpoint(tmp_path, 0.0))[1] == fitted()[1]


def test_batches_that_were_read_are_passed_over(tmp_path):
    """Had the resumed training begun with the first batch again, it would not have ended with the same weights."""
    interrupted(Checkpoint(tmp_path, 0.0), after=5)
    read = []
    batches = (read.append(place) or batch for place, batch in enumerate(learnable_batches(STEPS)))
    model, _ = fitted(Checkpoint(tmp_path, 0.0), batches=batches)
    assert equal(model, fitted()[0]) and len(read) == STEPS


def test_batches_may_draw_random_numbers_themselves(tmp_path):
    def drawn():
        for batch in learnable_batches(STEPS):
            torch.rand(3)
            yield batch

    interrupted(Checkpoint(tmp_path, 0.0), after=5, batches=drawn())
    assert equal(fitted(Checkpoint(tmp_path, 0.0), batches=drawn())[0], fitted(batches=drawn())[0])


def test_a_finished_training_is_not_repeated_until_it_is_discarded(tmp_path):
    checkpoint = Checkpoint(tmp_path / "states", 1e9)
    model, log = fitted(checkpoint)
    again, same = fitted(checkpoint, batches=(pytest.fail("A batch was read.") for _ in range(1)))
    assert equal(model, again) and same == log
    checkpoint.discard()
    assert not files(tmp_path)


@pytest.mark.parametrize("other", [{"seed": 1}, {"steps": 11}, {"rate": 2e-3}, {"model_seed": 1}])
def test_the_state_of_another_training_is_not_taken(tmp_path, other):
    interrupted(Checkpoint(tmp_path, 0.0), after=5)
    assert equal(fitted(Checkpoint(tmp_path, 0.0), **other)[0], fitted(**other)[0])
    assert len(files(tmp_path)) == 2


def test_frozen_parameters_and_ones_without_gradients_are_resumed_too(tmp_path):
    def run(checkpoint=None, after=None):
        model = tiny_model("bert")
        model.classifier.weight.requires_grad_(False)
        model.register_parameter("unused", torch.nn.Parameter(torch.ones(2)))

        def end(step, steps, loss):
            if step == after:
                raise Interruption

        options = {"learning_rate": 1e-3, "steps": STEPS, "on_step": end, "checkpoint": checkpoint}
        train(model, learnable_batches(STEPS), cross_entropy, **options)
        return model

    with pytest.raises(Interruption):
        run(Checkpoint(tmp_path, 0.0), after=5)
    assert equal(run(Checkpoint(tmp_path, 0.0)), run())


def test_it_is_written_as_often_as_asked_and_at_the_end(tmp_path, monkeypatch):
    """The clock advances by a second each time it is read, which is once a step and once a write."""
    written, save = [], checkpoints.save_file
    monkeypatch.setattr(checkpoints, "save_file", lambda *args: written.append(told[-1] + 1) or save(*args))
    told = [0]
    fitted(Checkpoint(tmp_path, 4.0, itertools.count().__next__), on_step=lambda step, *_: told.append(step))
    assert written == [4, 8, 12]


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_state_is_as_none(tmp_path, damage):
    interrupted(Checkpoint(tmp_path, 0.0), after=5)
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    assert equal(fitted(Checkpoint(tmp_path, 0.0))[0], fitted()[0])


def test_a_folder_that_cannot_be_written_costs_the_checkpoint_alone(tmp_path):
    (tmp_path / "file").write_text("")
    assert equal(fitted(Checkpoint(tmp_path / "file" / "below", 0.0))[0], fitted()[0])


def test_what_a_kill_leaves_half_written_is_not_read(tmp_path, monkeypatch):
    """The state that was whole before stays in its place."""
    save, calls = checkpoints.save_file, []

    def torn(tensors, path):
        calls.append(path)
        save(tensors, path)
        if len(calls) == 4:
            path.write_bytes(path.read_bytes()[:-100])
            raise Interruption

    monkeypatch.setattr(checkpoints, "save_file", torn)
    with pytest.raises(Interruption):
        fitted(Checkpoint(tmp_path, 0.0))
    monkeypatch.setattr(checkpoints, "save_file", save)
    steps = []
    model, _ = fitted(Checkpoint(tmp_path, 0.0), on_step=lambda step, *_: steps.append(step))
    assert equal(model, fitted()[0]) and steps[0] == 4
