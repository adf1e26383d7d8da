"""MetaSchedule: search a schedule of one f32 product at exactly its dimensions, and write the kernel that it found.

Shao et al. 2022, Tensor Program Optimization with Probabilistic Programs. It is given the product as a plain loop nest
over the same arguments as ``schedules.gemm_f32`` has, so that its kernel can take that one's place.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from tvm import s_tir, te

from autocompress._optional import require
from autocompress.compiler.graph import Activation
from autocompress.compiler.machine import Tile
from autocompress.compiler.program import Kernel
from autocompress.compiler.schedules.elementwise import activate
from autocompress.compiler.target import Target
from autocompress.compiler.tuning_log import Trace

TRIALS, AT_ONCE = 64, 16
"""Schedules that are run for a product, and how many before the cost model learns from them."""


def plain_f32(*, rows: int, depth: int, columns: int, activation: Activation | None, tile: Tile) -> Any:
    """Return the product as loops in no particular order; of ``tile`` only the width of a panel matters."""
    count, panel = tile.panels(columns), tile.panel
    x = te.placeholder((rows, depth), name="x")
    w = te.placeholder((count, depth, panel), name="w")
    bias = te.placeholder((count, panel), name="bias")
    k = te.reduce_axis((0, depth), name="k")
    sums = te.compute((rows, columns), lambda i, j: te.sum(x[i, k] * w[j // panel, k, j % panel], axis=k), name="sums")

    def finish(i: Any, j: Any) -> Any:
        value = sums[i, j] + bias[j // panel, j % panel]
        return value if activation is None else activate(value, activation, 1)

    return te.create_prim_func([x, w, bias, te.compute((rows, columns), finish, name="y")])


def traced_f32(name: str, *, trace: Trace, **size: Any) -> Any:
    """Return the kernel (x, W panels, bias panels, y) whose loops are ordered as ``trace`` says."""
    schedule = s_tir.Schedule(plain_f32(**size))
    s_tir.schedule.Trace.apply_json_to_schedule(json.loads(trace.steps), schedule)
    return schedule.mod["main"].with_attr("global_symbol", name)


def require_metaschedule() -> None:
    """Check that all that MetaSchedule needs is there.

    Raises:
        MissingDependencyError: A package is not installed.
    """
    for package in ("psutil", "cloudpickle", "xgboost"):
        require(package, extra="tune", purpose="tune by MetaSchedule")


def search_trace(
    kernel: Kernel, target: Target, time_us: Callable[[Any], float], *, trials: int = TRIALS, seed: int = 0
) -> Trace:
    """Return the trace of the fastest schedule that MetaSchedule finds for a kernel of ``gemm_f32``.

    Args:
        kernel: The product.
        target: What it is compiled for.
        time_us: Compiles a function of the name ``kernel_0``, runs it, and returns its time in microseconds.
        trials: How many schedules are run.
        seed: Of the search.

    Raises:
        MissingDependencyError: A package that it needs is not installed.
    """
    require_metaschedule()
    from tvm.s_tir import meta_schedule

    context = meta_schedule.TuneContext(
        plain_f32(**dict(kernel.size)),
        target=target.llvm(cores=1),
        space_generator="post-order-apply",
        search_strategy="evolutionary",
        rand_state=seed + 1,  # Nothing is drawn from a state of 0.
        num_threads=1,
        logger=_silent(),
    ).clone()
    builder, runner = _in_this_process(time_us)
    with tempfile.TemporaryDirectory(prefix="autocompress-") as folder:
        found = meta_schedule.tune_tasks(
            tasks=[context],
            task_weights=[1.0],
            work_dir=folder,
            max_trials_global=trials,
            num_trials_per_iter=min(AT_ONCE, trials),
            builder=builder,
            runner=runner,
            database="memory",
            measure_callbacks=[meta_schedule.measure_callback.AddToDatabase(), _learn()],
        )
    records = [record for record in found.get_all_tuning_records() if record.run_secs]
    best = min(records, key=lambda record: float(record.run_secs[0]))
    return Trace(json.dumps(_plain(best.trace.as_json())))


def _learn() -> Any:
    from tvm.s_tir.meta_schedule.measure_callback import UpdateCostModel

    return UpdateCostModel()


def _silent() -> logging.Logger:
    logger = logging.getLogger("autocompress.metaschedule")
    logger.setLevel(logging.CRITICAL)
    return logger


def _in_this_process(time_us: Callable[[Any], float]) -> tuple[Any, Any]:
    """Return MetaSchedule's builder and runner; its own start a process for each, which takes longer than all else."""
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule import builder, runner

    written: list[Any] = []

    @derived_object
    class Builder(builder.PyBuilder):  # type: ignore[misc]
        def build(self, build_inputs: Sequence[Any]) -> list[Any]:
            written.extend(item.mod["main"].with_attr("global_symbol", "kernel_0") for item in build_inputs)
            first = len(written) - len(build_inputs)
            return [builder.BuilderResult(str(index), None) for index in range(first, len(written))]

    @derived_object
    class Finished(runner.PyRunnerFuture):  # type: ignore[misc]
        def __init__(self, result: Any) -> None:
            self.found = result

        def done(self) -> bool:
            return True

        def result(self) -> Any:
            return self.found

    @derived_object
    class Runner(runner.PyRunner):  # type: ignore[misc]
        def run(self, runner_inputs: Sequence[Any]) -> list[Any]:
            return [Finished(_result(written[int(str(item.artifact_path))])) for item in runner_inputs]

    def _result(function: Any) -> Any:
        try:
            return runner.RunnerResult([time_us(function) / 1e6], None)
        except RuntimeError as error:  # What TVM cannot compile is a failed candidate, which MetaSchedule learns from.
            return runner.RunnerResult(None, str(error)[-200:])

    return Builder(), Runner()


def _plain(value: Any) -> Any:
    """Return JSON values of TVM's."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "__iter__"):
        return [_plain(item) for item in value]
    return value.value
