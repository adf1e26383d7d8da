"""Timing kernels on an agent: one library a class, a fresh process a request."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import tvm
from tvm import te

from autocompress.boards.connection import Patience
from autocompress.boards.remote_timer import RemoteTimer
from autocompress.compiler import relax_graph
from autocompress.compiler.lowering import lower
from autocompress.compiler.program import Kernel
from autocompress.compiler.target import Target, machine_of
from autocompress.compiler.tuning import candidates, products, tune
from autocompress.compiler.tuning_log import TuningLog
from autocompress.cost import Failure
from autocompress.errors import DeviceError
from autocompress.pipeline.tuning import kept_log, tune_device
from autocompress.shape import LayerShape, ModelShape, by_block
from tests.boards.agents import wait_until

TARGET = Target.host()
MACHINE = machine_of(TARGET.llvm())
SHAPE = ModelShape("bert", 50, 512, 64, 64, (LayerShape(4, 16, 128, *by_block(32, 8)),), 3)
SIGILL = 4


def product(tokens):
    """Return the class of a product of so many rows, and its first kernel."""
    return next(iter(products([lower(SHAPE, tokens=tokens, machine=MACHINE)]).items()))


def raises(name, *, signal):
    """Return a kernel that ends its process by a signal."""
    y = te.compute((1,), lambda i: tvm.tirx.call_extern("int32", "raise", signal), name="y")
    return te.create_prim_func([y]).with_attr("global_symbol", name)


@pytest.fixture
def crashing(monkeypatch):
    monkeypatch.setitem(relax_graph.FAMILIES, "raises", raises)
    return Kernel.of("raises", signal=SIGILL)


@pytest.fixture
def timer(serving):
    with RemoteTimer(serving.connection(Patience()), TARGET) as timer:
        yield timer


def test_kernels_are_timed_in_turn_and_one_of_more_rows_takes_longer(timer):
    kernels = {str(rows): product(rows)[1] for rows in (4, 256)}
    times_us = timer(kernels)(["4", "256", "4", "256", "4"])
    assert {name: len(taken) for name, taken in times_us.items()} == {"4": 3, "256": 2}
    assert 0 < 4 * min(times_us["4"]) < min(times_us["256"])


def test_a_class_is_tuned_and_nothing_is_left_on_the_board(serving):
    kernel_class, kernel = product(5)
    with RemoteTimer(serving.connection(Patience()), TARGET) as timer:
        log = tune({kernel_class: kernel}, MACHINE, TuningLog(str(TARGET)), timer)
        (library,) = serving.store.iterdir()
        assert library.suffix == ".so"
    entry = log.entries[kernel_class]
    assert set(entry.microseconds) == {str(tile) for tile in candidates(kernel, MACHINE)}
    assert all(time_us > 0 for time_us in entry.microseconds.values())
    assert list(serving.store.iterdir()) == []


def test_a_models_log_is_kept_for_the_builds_that_follow(timer, monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(tmp_path))
    shape = ModelShape("bert", 50, 32, 24, 24, (), 3)
    told = []
    log = tune_device([shape], tokens=5, target=TARGET, timer=timer, progress=lambda *event: told.append(event))
    assert kept_log() == log and log.entries
    assert told[-1][:3] == ("tune", len(log.entries), len(log.entries))


def test_a_kernel_that_crashes_is_skipped_and_the_others_are_timed(timer, crashing):
    found = timer({"good": product(5)[1], "bad": crashing})(["good", "bad", "good", "bad"])
    assert found["bad"] == Failure("crash: SIGILL")
    assert len(found["good"]) == 2 and min(found["good"]) > 0


def test_a_tile_that_crashes_is_no_candidate(timer, crashing):
    kernel_class, kernel = product(5)
    bad = str(candidates(kernel, MACHINE)[-1])

    def sabotaged(kernels):
        return timer({**kernels, bad: crashing})

    told = []
    log = tune({kernel_class: kernel}, MACHINE, TuningLog(str(TARGET)), sabotaged, told.append)
    assert set(log.entries[kernel_class].microseconds) == {str(tile) for tile in candidates(kernel, MACHINE)} - {bad}
    assert f"{bad} skipped (crash: SIGILL)" in told[-1].note


def test_a_library_that_cannot_be_opened_fails_every_kernel(serving, monkeypatch):
    monkeypatch.setattr(
        "autocompress.compiler.linker.linker", lambda target: lambda path, *_, **__: Path(path).write_bytes(b"-")
    )
    with RemoteTimer(serving.connection(Patience()), TARGET) as timer:
        (failure,) = timer({"a": product(5)[1]})(["a"]).values()
    assert isinstance(failure, Failure)
    assert failure.reason.startswith("error: exit status 1: RuntimeError")


def test_an_agent_that_is_killed_meanwhile_is_asked_again(fresh):
    def kill():
        wait_until(fresh.kernel_worker)
        fresh.server().kill()

    killer, before = threading.Thread(target=kill), fresh.server()
    with RemoteTimer(fresh.connection(), TARGET) as timer:
        sample = timer({"a": product(64)[1]})
        killer.start()
        times_us = sample(["a"] * 500)
        killer.join()
    assert fresh.server() != before
    assert len(times_us["a"]) == 500 and min(times_us["a"]) > 0


def test_an_agent_that_is_gone_is_an_error_that_names_the_step(fresh):
    fresh.supervisor.kill()
    wait_until(lambda: fresh.supervisor.poll() is not None)
    hurried = Patience(connect_s=1, call_s=1, pauses_s=(0.1,))
    with RemoteTimer(fresh.connection(hurried), TARGET) as timer, pytest.raises(DeviceError, match="timing kernels"):
        timer({"a": product(5)[1]})(["a"])
