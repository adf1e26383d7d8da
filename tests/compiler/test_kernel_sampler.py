import numpy as np
import pytest
import tvm  # noqa: F401 - loads the runtime into tvm_ffi
import tvm_ffi

from autocompress.compiler.kernel_sampler import one_thread, some_values


def test_the_number_of_threads_is_put_back():
    count = tvm_ffi.get_global_func("runtime.NumThreads")
    before = count()
    with one_thread(tvm_ffi):
        assert count() == 1
    assert count() == before


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "int16", "uint16", "int32"])
def test_values_are_ordinary_and_always_the_same(dtype):
    values = some_values([3, 50], dtype)
    assert (values.dtype, values.shape) == (np.dtype(dtype), (3, 50))
    assert values.ctypes.data % 64 == 0
    np.testing.assert_array_equal(values, some_values([3, 50], dtype))
    if dtype == "uint16":  # The bits of bfloat16 numbers.
        values = (values.astype(np.uint32) << 16).view(np.float32)
        assert values.min() >= 0.5
    assert 0 <= values.min() < values.max() <= 127
