import importlib.util

import numpy as np
import pytest

from autocompress.compiler import meta_schedule
from autocompress.compiler.local_timer import LocalTimer
from autocompress.compiler.machine import Tile
from autocompress.compiler.meta_schedule import plain_f32, require_metaschedule, search_trace
from autocompress.compiler.packing import panels, row_panels
from autocompress.compiler.program import Kernel
from autocompress.compiler.relax_graph import write_kernel
from autocompress.compiler.schedules.gemm_f32 import gemm_f32
from autocompress.compiler.target import Target
from autocompress.compiler.tuning_log import TRACED
from autocompress.errors import MissingDependencyError
from tests.compiler.running import run

INSTALLED = all(importlib.util.find_spec(name) for name in ("psutil", "cloudpickle", "xgboost"))
SIZE = {"rows": 6, "depth": 20, "columns": 45, "activation": "gelu", "tile": Tile(4, 16, 8)}


def outputs(written):
    rng = np.random.default_rng(0)
    x, w, bias = (rng.standard_normal(shape, np.float32) for shape in ((6, 20), (20, 45), (1, 45)))
    (y,) = run(written, [x, panels(w, 16), row_panels(bias[0], 16)], [((6, 45), "float32")])
    return y


def test_the_plain_loops_take_the_arguments_of_the_kernel_and_compute_the_same():
    plain = plain_f32(**SIZE).with_attr("global_symbol", "kernel")
    np.testing.assert_allclose(outputs(plain), outputs(gemm_f32("kernel", **SIZE)), rtol=1e-5, atol=1e-5)


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch):
    def absent(module, **what):
        raise MissingDependencyError(f"{module} {what['extra']}", right="", next_step="")

    monkeypatch.setattr(meta_schedule, "require", absent)
    with pytest.raises(MissingDependencyError, match="psutil tune"):
        require_metaschedule()


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="needs the extra tune")
def test_a_schedule_that_was_searched_computes_the_product():
    timer, kernel = LocalTimer(Target.host()), Kernel.of("gemm_f32", **SIZE)
    trace = search_trace(kernel, Target.host(), timer.time_us, trials=4)
    assert "SamplePerfectTile" in trace.steps
    written = write_kernel(Kernel.of(TRACED, **SIZE, trace=trace), "kernel")
    np.testing.assert_allclose(outputs(written), outputs(gemm_f32("kernel", **SIZE)), rtol=1e-5, atol=1e-5)
    assert timer({"trace": Kernel.of(TRACED, **SIZE, trace=trace)})(["trace"])["trace"][0] > 0
