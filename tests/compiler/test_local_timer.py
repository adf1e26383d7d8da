import pytest

from autocompress.compiler.local_timer import LocalTimer
from autocompress.compiler.lowering import lower
from autocompress.compiler.target import Target, machine_of
from autocompress.compiler.tuning import candidates, products, tune
from autocompress.compiler.tuning_log import TuningLog, find_log, save_log
from autocompress.shape import BITS, LayerShape, ModelShape, by_block

TARGET = Target.host()
MACHINE = machine_of(TARGET.llvm())


@pytest.mark.parametrize("bits", BITS)
def test_the_products_of_a_model_are_timed_on_this_machine(bits, tmp_path):
    shape = ModelShape("bert", 50, 32, 24, 24, (LayerShape(4, 6, 45, *by_block(bits, bits)),), 3)
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
    times = LocalTimer(TARGET)(kernels)(["4", "256"] * 3)
    assert min(times["256"]) > 4 * min(times["4"])
