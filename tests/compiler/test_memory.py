"""The plan of a program against what TVM's passes make of it."""

import re
from dataclasses import replace
from typing import get_args

import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from autocompress.compiler.dots import dpbf16ps, nibble_maddubs, nibble_vnni, pmaddwd, shifted, vnni
from autocompress.compiler.graph import random_weights
from autocompress.compiler.lowering import lower
from autocompress.compiler.machine import Machine
from autocompress.compiler.memory import activation_bytes, constant_bytes, plan, scratch, workspace_bytes
from autocompress.compiler.program import Call, Kernel, Program, Tensor
from autocompress.compiler.relax_graph import kernel_options, relax_module, write_kernel
from autocompress.shape import (
    BITS,
    EMBEDDING_BITS,
    WEIGHT_GROUPS,
    Activations,
    LayerShape,
    ModelShape,
    WeightGrid,
    by_block,
    nearest_embedding_bits,
)

WIDE = Machine(lanes=16, registers=32, dot=vnni(16), nibbles=nibble_vnni(16), half=dpbf16ps(16))
NARROW = Machine(lanes=8, registers=16, dot=pmaddwd(8), nibbles=nibble_maddubs(8), half=shifted(8))
MINILM = ModelShape("bert", 30522, 512, 384, 384, (LayerShape(12, 32, 1536),) * 6, 2)

layers = st.builds(
    LayerShape,
    heads=st.integers(1, 5),
    head_width=st.sampled_from((7, 16, 32)),
    ffn=st.integers(1, 300),
    attention_in_bits=st.sampled_from(BITS),
    attention_out_bits=st.sampled_from(BITS),
    ffn_in_bits=st.sampled_from(BITS),
    ffn_out_bits=st.sampled_from(BITS),
    most_tokens=st.sampled_from((0, 1, 6, 200)),
    activations=st.sampled_from(get_args(Activations)),
    weight_group=st.sampled_from(WEIGHT_GROUPS),
    zero_points=st.booleans(),
)
shapes = st.builds(
    ModelShape,
    family=st.just("bert"),
    vocabulary=st.just(50),
    positions=st.just(512),
    embedding=st.sampled_from((24, 64)),
    hidden=st.sampled_from((24, 130)),
    layers=st.lists(layers, min_size=1, max_size=4).map(tuple),
    classes=st.integers(1, 5),
    embedding_bits=st.sampled_from(EMBEDDING_BITS),
    embedding_rank=st.sampled_from((0, 9)),
)


def at(bits, shape=MINILM):
    wide = tuple(layer.with_bits(*by_block(bits, bits)) for layer in shape.layers)
    return replace(shape, layers=wide, embedding_bits=nearest_embedding_bits(bits))


def planned(program: Program) -> tuple[list[int], list[int]]:
    """Bytes of each storage as TVM plans it, and the storage of each value, in the order in which they are written."""
    steps = relax.transform
    passes = [
        steps.ToNonDataflow(),
        steps.RemovePurityChecking(),
        steps.CallTIRRewrite(),
        steps.StaticPlanBlockMemory(),
        steps.LowerAllocTensor(),
    ]
    with kernel_options():
        module = tvm.transform.Sequential(passes)(relax_module(program))
    storages, sizes, places = {}, [], []
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            operation = getattr(getattr(binding.value, "op", None), "name", "")
            if operation == "relax.memory.alloc_storage":
                storages[binding.var] = len(sizes)
                sizes.append(int(binding.value.args[0].values[0]))
            elif operation == "relax.memory.alloc_tensor":
                places.append(storages[binding.value.args[0]])
    return sizes, places


def check(program: Program) -> None:
    sizes, places = planned(program)
    ours = plan(program)
    values = [tensor for call in program.calls for tensor in call.outputs]
    assert list(ours.storage_bytes) == sizes
    assert [ours.places[value.name] for value in values] == places
    assert activation_bytes(program) == sum(sizes)


@settings(max_examples=15, deadline=None)
@given(
    shape=shapes,
    tokens=st.sampled_from((1, 2, 5, 17, 64, 300)),
    batch=st.sampled_from((1, 2, 8)),
    machine=st.sampled_from((WIDE, NARROW)),
)
def test_every_value_lives_in_the_storage_that_the_compiled_program_gives_it(shape, tokens, batch, machine):
    check(lower(shape, tokens=tokens, batch=batch, machine=machine))


@pytest.mark.parametrize("bits", BITS)
def test_a_whole_model_takes_the_storage_that_the_compiled_program_allocates(bits):
    check(lower(at(bits), tokens=64, machine=WIDE))


def chain(*widths: int) -> Program:
    """Values of these widths, each read by the call that writes the next."""
    values = [Tensor(f"value_{index}", (1, width)) for index, width in enumerate(widths)]
    calls = [
        Call(Kernel.of("step", index=index), (before,), (after,))
        for index, (before, after) in enumerate(zip(values, values[1:], strict=False))
    ]
    return Program(tuple(values[:1]), (), tuple(calls), values[-1])


@pytest.mark.parametrize(
    ("widths", "storages"),
    [
        # The third value finds the first one's storage free; the input and the output have no part in it.
        ((9, 10, 20, 10, 5), (10, 20, 5)),
        # It grows, though only 16 times.
        ((9, 1, 2, 16, 5), (16, 2, 5)),
        ((9, 1, 2, 32, 5), (1, 2, 32, 5)),
        # Nor does a small value take one more than 16 times larger.
        ((9, 48, 20, 3, 5), (48, 20, 5)),
        ((9, 64, 20, 3, 5), (64, 20, 3, 5)),
    ],
)
def test_a_free_storage_is_taken_if_it_is_near_enough_in_size(widths, storages):
    assert plan(chain(*widths)).storage_bytes == tuple(4 * width for width in storages)


def test_values_that_are_alive_at_once_never_share_a_storage():
    program = lower(at(8), tokens=17, machine=WIDE)
    ours, alive = plan(program), {}
    last = {tensor: index for index, call in enumerate(program.calls) for tensor in call.inputs}
    for index, call in enumerate(program.calls):
        alive = {place: until for place, until in alive.items() if until >= index}
        for tensor in call.outputs:
            assert ours.places[tensor.name] not in alive
            assert ours.storage_bytes[ours.places[tensor.name]] >= tensor.size_bytes
            alive[ours.places[tensor.name]] = last.get(tensor, index)


@pytest.mark.parametrize("grid", [WeightGrid(), WeightGrid(128, zero_points=True)], ids=str)
@pytest.mark.parametrize(
    ("bits", "activations"), [*((bits, "dynamic") for bits in BITS), (8, "static"), (8, "smoothed"), (8, "token")]
)
def test_constants_take_the_bytes_of_their_packed_arrays(bits, activations, grid):
    small = replace(at(bits), vocabulary=60, layers=at(bits).layers[:1]).with_activations(activations).with_grid(grid)
    program, weights = lower(small, tokens=5, machine=WIDE), random_weights(small)
    assert constant_bytes(program) == sum(constant.pack(weights).nbytes for constant in program.constants)


ASKED = re.compile(r"TVMBackendAllocWorkspace\(.*?T\.uint64\((\d+)\)")
LOOP = re.compile(r"T\.parallel\((\d+)\)")


def asked(kernel: Kernel) -> tuple[int, int, int]:
    """Bytes of workspace in the lowered code of a kernel outside the parallel loops and inside, and their iterations.

    A loop of one iteration is none any more.
    """
    target = tvm.target.Target({"kind": "llvm", "mcpu": "skylake-avx512"})
    steps, finish, _ = tvm.tirx.get_default_tir_pipeline(target)
    with kernel_options():
        module = tvm.IRModule({"kernel": write_kernel(kernel, "kernel")})
        module = tvm.tirx.transform.BindTarget(target.with_host(target))(module)
        text = finish()(steps(module)).script()
    outside, inside, iterations, loop = 0, 0, 1, None
    for line in text.splitlines():
        depth = len(line) - len(line.lstrip())
        if loop is not None and line.strip() and depth <= loop:
            loop = None
        if found := LOOP.search(line):
            loop, iterations = depth, int(found[1])
        elif found := ASKED.search(line):
            outside, inside = (outside + int(found[1]), inside) if loop is None else (outside, inside + int(found[1]))
    return outside, inside, iterations


@pytest.mark.parametrize(("machine", "tokens"), [(WIDE, 1), (NARROW, 9), (WIDE, 300)])
def test_kernels_ask_for_the_workspace_that_is_in_their_code(machine, tokens):
    layers = tuple(LayerShape(2, 7 + bits, 45, *by_block(bits, bits)) for bits in BITS)
    fixed = (
        LayerShape(2, 9, 45, *by_block(8, 8), activations="static"),
        LayerShape(2, 9, 45, *by_block(8, 8), activations="smoothed"),
    )
    shape = ModelShape("bert", 50, 512, 20, 24, (*layers, *fixed, LayerShape(2, 8, 45, most_tokens=7)), 3)
    tables = [replace(shape, embedding_bits=bits) for bits in EMBEDDING_BITS]
    kernels = {kernel for shape in tables for kernel in lower(shape, tokens=tokens, machine=machine).names()}
    for kernel in kernels:
        need, (outside, inside, iterations) = scratch(kernel), asked(kernel)
        assert need.call_bytes + need.task_bytes == outside + inside, kernel
        if iterations > 1 and need.task_bytes:
            assert (need.task_bytes, need.tasks) == (inside, iterations), kernel


def test_a_buffer_of_a_kilobyte_is_no_longer_on_the_stack():
    for tokens in (255, 256):
        program = lower(replace(at(8), layers=at(8).layers[:1]), tokens=tokens, machine=WIDE)
        (kernel,) = (kernel for kernel in program.names() if kernel.family == "quantize" and "384" in str(kernel))
        assert scratch(kernel).call_bytes == asked(kernel)[0] == (2 * 4 * tokens if tokens == 256 else 0)


def test_each_thread_with_a_task_holds_the_keys_and_scores_of_a_head():
    # 12 heads of 64 x 32 keys and 8 x 64 scores; where eight threads take two heads each, two take none.
    program = lower(MINILM, tokens=64, machine=WIDE)
    head = 4 * (64 * 32 + 8 * 64)
    assert workspace_bytes(program, threads=1) == head
    assert workspace_bytes(program, threads=4) == 4 * head
    assert workspace_bytes(program, threads=8) == 6 * head
