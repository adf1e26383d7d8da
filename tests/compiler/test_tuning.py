from dataclasses import replace

import pytest

from autocompress.compiler.dots import (
    dpbf16ps,
    fmla,
    nibble_maddubs,
    nibble_sdot,
    nibble_vnni,
    pmaddwd,
    sdot,
    shifted,
    vnni,
)
from autocompress.compiler.lowering import lower
from autocompress.compiler.machine import Machine
from autocompress.compiler.program import Kernel
from autocompress.compiler.tuning import (
    CANDIDATES,
    FIRST_ROUNDS,
    ROUNDS,
    alternate,
    candidates,
    products,
    tallest,
    trace,
    tune,
)
from autocompress.compiler.tuning_log import TRACED, Entry, KernelClass, Trace, TuningLog, tvm_version
from autocompress.cost import Failure
from autocompress.shape import BITS, LayerShape, ModelShape, by_block

MACHINES = {
    "avx2": Machine(8, 16, pmaddwd(8), nibble_maddubs(8), shifted(8)),
    "avx512": Machine(16, 32, vnni(16), nibble_vnni(16), dpbf16ps(16)),
    "arm": Machine(4, 32, sdot(), nibble_sdot(), fmla()),
}
MACHINE = MACHINES["avx512"]
FAMILIES = {32: "gemm_f32", 16: "gemm_f16", 8: "gemm_i8", 4: "gemm_grouped", 3: "gemm_grouped", 2: "gemm_grouped"}


def product(machine, bits, rows, depth=384, columns=1536):
    tile = machine.rule(FAMILIES[bits], rows, depth, columns)
    size = {"rows": rows, "depth": depth, "columns": columns, "activation": "gelu", "tile": tile}
    if bits != 32:
        size["dot"] = {16: machine.half, 8: machine.dot}.get(bits, machine.nibbles)
    return Kernel.of(FAMILIES[bits], **size, **({"bits": bits} if bits < 8 else {}))


class ByTable:
    """A timer to whom some tiles are slow for a while: tile -> microseconds of each run, the last one for ever."""

    def __init__(self, times, usual=100.0, failures=()):
        self.failures = {name: Failure("crash: SIGILL") for name in failures}
        self.times, self.usual = {name: list(values) for name, values in times.items()}, usual
        self.compiled, self.runs = [], []

    def __call__(self, kernels):
        self.compiled.append(dict(kernels))

        def time_us(name):
            self.runs.append(name)
            values = self.times.get(name, [self.usual])
            return values.pop(0) if len(values) > 1 else values[0]

        def sample(order):
            times = {name: [] for name in order}
            for name in order:
                times[name].append(time_us(name))
            return {name: self.failures.get(name, taken) for name, taken in times.items()}

        return sample


def tuned(timer, kernel, log=None):
    return tune({KernelClass.of(kernel): kernel}, MACHINE, log or TuningLog("znver4"), timer).entries[
        KernelClass.of(kernel)
    ]


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("rows", [1, 3, 64, 127])
def test_candidates_begin_with_the_rule_and_fit_the_registers(machine, bits, rows):
    kernel = product(machine, bits, rows)
    found = candidates(kernel, machine)
    assert found[0] == machine.rule(FAMILIES[bits], rows, 384, 1536)
    assert 3 <= len(set(found)) == len(found) <= CANDIDATES
    lanes = machine.half.lanes if bits == 16 else machine.lanes
    each = 2 if bits < 8 else 3 if lanes > machine.lanes else 1  # f16 sums, and totals of twice their width.
    for tile in found[1:]:
        assert tile.panel % lanes == 0 and tile.rows <= rows
        vectors = tile.panel // lanes
        assert each * tile.rows * vectors + 2 <= machine.registers
        assert tile.rows <= tallest(kernel, machine, vectors)


def test_a_rule_that_reads_ahead_is_timed_without_it_and_others_read_ahead_too():
    machine = replace(MACHINE, ahead=True)
    rule, plain, *others = candidates(product(machine, 32, 64), machine)
    assert (rule.ahead, plain) == (True, replace(rule, ahead=False))
    assert others and all(tile.ahead for tile in others)
    # Weights that one tile reads alone come in a stream.
    assert not any(tile.ahead for tile in candidates(product(machine, 32, 1), machine))


def test_candidates_are_no_wider_than_the_class():
    assert {tile.panel for tile in candidates(product(MACHINE, 32, 64, 384, 3), MACHINE)} == {16, 32}


@pytest.mark.parametrize("bits", BITS)
def test_products_share_a_class_but_not_between_families(bits):
    layers = (LayerShape(4, 6, 45, *by_block(bits, bits)), LayerShape(4, 6, 47, *by_block(bits, bits)))
    program = lower(
        ModelShape("bert", 50, 32, 24, 24, layers, 3),
        tokens=5,
        machine=MACHINE,
    )
    found = products([program, program])
    family = FAMILIES[bits] + (f"_{bits}" if bits < 8 else "")
    assert sorted((one.rows, one.depth, one.columns) for one in found if one.family == family and one.rows == 5) == [
        (5, 32, 32),  # output
        (5, 32, 64),  # 45 and 47 neurons, inwards
        (5, 32, 128),  # 3 * 24 channels
        (5, 64, 32),  # outwards
    ]
    assert all(KernelClass.of(kernel) == kernel_class for kernel_class, kernel in found.items())


def test_the_kernels_that_are_timed_have_the_size_of_the_class():
    timer = ByTable({})
    kernel = product(MACHINE, 8, 64, depth=380, columns=1000)
    tuned(timer, kernel)
    sizes = [dict(one.size) for one in timer.compiled[0].values()]
    assert {(size["rows"], size["depth"], size["columns"], size["activation"]) for size in sizes} == {
        (64, 384, 1024, None)
    }
    assert {size["tile"] for size in sizes} == set(candidates(kernel, MACHINE))


def test_the_fastest_tile_is_kept_with_all_times():
    entry = tuned(ByTable({"8x48": [80.0]}), product(MACHINE, 32, 64))
    assert (entry.tile, entry.microseconds["8x48"], entry.microseconds["8x32"]) == ("8x48", 80.0, 100.0)
    assert set(entry.microseconds) == {"8x32", "4x96", "6x64", "8x48", "4x64", "13x32"}
    assert (entry.source, entry.tvm) == ("timed", tvm_version())


def test_two_percent_are_not_enough_to_leave_the_rule():
    assert tuned(ByTable({"8x48": [98.5]}), product(MACHINE, 32, 64)).tile == "8x32"
    assert tuned(ByTable({"8x48": [97.5]}), product(MACHINE, 32, 64)).tile == "8x48"


def test_a_tile_that_was_lucky_once_does_not_win():
    lucky = [80.0] * (FIRST_ROUNDS + ROUNDS + 2) + [100.0]
    timer = ByTable({"8x48": lucky})
    assert tuned(timer, product(MACHINE, 32, 64)).tile == "8x32"
    assert set(timer.runs[-2 * (ROUNDS + 1) :]) == {"8x32", "8x48"}


def test_a_tile_that_does_not_run_is_skipped_and_never_chosen():
    entry = tuned(ByTable({"8x48": [10.0], "13x32": [80.0]}, failures=["8x48"]), product(MACHINE, 32, 64))
    assert (entry.tile, set(entry.microseconds)) == ("13x32", {"8x32", "4x96", "6x64", "4x64", "13x32"})


def test_the_fastest_tile_takes_the_place_of_a_rule_that_does_not_run():
    entry = tuned(ByTable({"6x64": [99.5]}, failures=["8x32"]), product(MACHINE, 32, 64))
    assert entry.tile == "6x64" and "8x32" not in entry.microseconds


def test_a_class_of_which_no_tile_runs_is_told_and_left_to_the_rule():
    kernels, told = [product(MACHINE, bits, 64) for bits in (32, 8)], []
    timer = ByTable({}, failures=map(str, candidates(kernels[0], MACHINE)))

    def fails_once(kernels):
        timer.failures = {} if timer.compiled else timer.failures
        return timer(kernels)

    wanted = {KernelClass.of(kernel): kernel for kernel in kernels}
    log = tune(wanted, MACHINE, TuningLog("znver4"), fails_once, told.append)
    assert set(log.entries) == {KernelClass.of(kernels[1])}
    assert "8x32 skipped (crash: SIGILL)" in told[1].note and told[2].done == 2


def test_a_slow_tile_is_timed_in_the_first_rounds_only():
    timer = ByTable({"6x64": [300.0]})
    tuned(timer, product(MACHINE, 32, 64))
    assert timer.runs.count("6x64") == FIRST_ROUNDS + 1
    assert timer.runs.count("4x64") == FIRST_ROUNDS + 1 + ROUNDS + 1


def test_what_disturbs_some_samples_does_not_show():
    disturbed = ByTable({"a": [50.0, 1.0, 9.0, 1.0, 9.0, 9.0, 9.0, 9.0, 1.0, 1.0]})
    assert alternate(disturbed({}), ["a", "b"], 8) == ({"a": 1.0, "b": 100.0}, {})
    assert disturbed.runs[:4] == ["a", "b", "b", "a"]


def test_what_is_known_is_not_timed_again_unless_another_tvm_found_it():
    kernel = product(MACHINE, 32, 64)
    known = Entry("13x32", {}, tvm_version(), "2026-01-02")
    timer = ByTable({})
    assert tuned(timer, kernel, TuningLog("znver4", {KernelClass.of(kernel): known})) == known
    assert timer.compiled == []
    old = replace(known, tvm="0.0")
    assert tuned(timer, kernel, TuningLog("znver4", {KernelClass.of(kernel): old})).tile == "8x32"


def test_all_that_was_timed_before_a_crash_has_been_told():
    kernels = [product(MACHINE, bits, 64) for bits in (32, 8, 2)]
    wanted = {KernelClass.of(kernel): kernel for kernel in kernels}
    told, timer = [], ByTable({})

    def crashes(kernels):
        if len(timer.compiled) == 2:
            raise KeyboardInterrupt
        return timer(kernels)

    with pytest.raises(KeyboardInterrupt):
        tune(wanted, MACHINE, TuningLog("znver4"), crashes, told.append)
    assert [(state.done, state.total) for state in told] == [(0, 3), (1, 3), (2, 3)]
    assert list(told[-1].log.entries) == list(wanted)[:2]
    assert "gemm_i8" in told[-1].note and "100 us" in told[-1].note
    again = tune(wanted, MACHINE, told[-1].log, ByTable({}), told.append)
    assert (told[-1].done, told[-1].total, set(again.entries)) == (1, 1, set(wanted))


class TestTraces:
    """A trace is used where it was searched, and only if it is faster than the tile."""

    shape = ModelShape("bert", 50, 32, 24, 24, (LayerShape(4, 6, 45),), 3)

    def program(self, log=None):
        tiles = log.tiles(MACHINE) if log else None
        return lower(self.shape, tokens=5, machine=MACHINE, tiles=tiles)

    def traced(self, us, program=None, log=None):
        """Return the log of searches all of which end at so many microseconds beside tiles of 100."""
        program = program or self.program()
        log = log or tune(products([program]), MACHINE, TuningLog("znver4"), ByTable({}))
        self.searched = []

        def search(kernel):
            self.searched.append(kernel)
            return Trace(f"[{len(self.searched)}]")

        return trace([program], log, ByTable({"trace": [us], "tile": [100.0]}), search)

    def test_a_faster_trace_writes_the_kernel_of_its_own_dimensions(self):
        log = self.traced(90.0)
        kernels = {kernel for kernel in self.program().names() if kernel.family == "gemm_f32"}
        assert set(self.searched) == kernels
        changed = log.traced(self.program())
        assert {kernel.family for kernel in changed.names()} & {"gemm_f32", TRACED} == {TRACED}
        for before, after in zip(self.program().calls, changed.calls, strict=True):
            assert (before.inputs, before.outputs) == (after.inputs, after.outputs)
            assert dict(before.kernel.size).items() <= dict(after.kernel.size).items()
        assert {entry.source for entry in log.entries.values()} == {"metaschedule"}
        other = lower(replace(self.shape, layers=(LayerShape(4, 6, 46),)), tokens=5, machine=MACHINE)
        families = [
            (kernel.family, dict(kernel.size)["columns"])
            for kernel in log.traced(other).names()
            if "tile" in dict(kernel.size)
        ]
        assert ("gemm_f32", 46) in families and (TRACED, 46) not in families

    def test_a_trace_that_is_no_faster_is_not_used_nor_searched_again(self):
        log = self.traced(99.0)
        program = self.program()
        assert log.traced(program) == program
        assert {entry.source for entry in log.entries.values()} == {"timed"}
        again = self.traced(50.0, log=log)
        assert (self.searched, again) == ([], log)

    def test_the_name_of_a_kernel_tells_traces_apart(self):
        names = {str(kernel) for kernel in self.traced(90.0).traced(self.program()).names()}
        traced = sorted(name for name in names if name.startswith(TRACED))
        assert len(traced) == len(self.searched) and all("trace=" in name and "[" not in name for name in traced)
        assert self.traced(90.0).digest != self.traced(99.0).digest
