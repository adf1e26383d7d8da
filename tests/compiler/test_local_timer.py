import numpy as np
import pytest
import tvm

from autocompress.compiler.local_timer import LocalTimer, one_thread, some_values
from autocompress.compiler.lowering import lower
from autocompress.compiler.target import Target, machine_of
from autocompress.compiler.tuning import candidates, products, tune
from autocompress.compiler.tuning_log import TuningLog, find_log, save_log
from autocompress.shape import BITS, LayerShape, ModelShape

TARGET = Target.host()
MACHINE = machine_of(TARGET.llvm())


@pytest.mark.parametrize("bits", BITS)
def test_the_products_of_a_model_are_timed_on_this_machine(bits, tmp_path):
    shape = ModelShape("bert", 50, 32, 24, 24, (LayerShape(4, 6, 45, bits, bits),), 3)
    wanted = products([lower(shape, tokens=5, machine=MACHINE)])
    some = dict(list(wanted.items())[:2])
    log = tune(some, MACHINE, TuningLog(str(TARGET)), LocalTimer(TARGET), lambda state: save_log(state.log, tmp_path))
    assert find_log(str(TARGET), [tmp_path]) == log
    for kernel_class, kernel in some.items():
        entry = log.entries[kernel_class]
        assert set(entry.microseconds) == {str(tile) for tile in candidates(kernel, MACHINE)}
        assert entry.tile in entry.microseconds
        # More than a product of this size can take on any machine, and less than a clock can tell.
        assert all(1e-3 < time_us < 1e5 for time_us in entry.microseconds.values())


def test_a_product_of_more_rows_takes_longer():
    kernels = {}
    for rows in (4, 256):
        shape = ModelShape("bert", 50, 512, 64, 64, (LayerShape(4, 16, 128),), 3)
        (_, kernel), *_ = products([lower(shape, tokens=rows, machine=MACHINE)]).items()
        kernels[str(rows)] = kernel
    sample = LocalTimer(TARGET)(kernels)
    assert min(sample("256") for _ in range(3)) > 4 * min(sample("4") for _ in range(3))


def test_the_number_of_threads_is_put_back():
    count = tvm.get_global_func("runtime.NumThreads")
    before = count()
    with one_thread():
        assert count() == 1
    assert count() == before


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "int16", "uint16", "int32"])
def test_values_are_ordinary_and_always_the_same(dtype):
    values = some_values([3, 50], dtype)
    assert (values.dtype, values.shape) == (np.dtype(dtype), (3, 50))
    np.testing.assert_array_equal(values, some_values([3, 50], dtype))
    if dtype == "uint16":  # The bits of bfloat16 numbers.
        values = (values.astype(np.uint32) << 16).view(np.float32)
        assert values.min() >= 0.5
    assert 0 <= values.min() < values.max() <= 127
