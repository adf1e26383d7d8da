"""Write a program as a TVM Relax function of kernels with fixed dimensions, and compile it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax

from autocompress.compiler.meta_schedule import traced_f32
from autocompress.compiler.program import Call, Kernel, Program, Tensor
from autocompress.compiler.schedules.attention import attention
from autocompress.compiler.schedules.elementwise import add, first_and_mean, first_rows
from autocompress.compiler.schedules.embed import behind_learned, lookup, patches
from autocompress.compiler.schedules.gemm_f16 import gemm_f16, narrow
from autocompress.compiler.schedules.gemm_f32 import gemm_f32
from autocompress.compiler.schedules.gemm_grouped import gemm_grouped, quantize_groups
from autocompress.compiler.schedules.gemm_i8 import gemm_i8, quantize, quantize_static
from autocompress.compiler.schedules.norm import norm
from autocompress.compiler.schedules.selection import most_significant, take_rows

FAMILIES: dict[str, Callable[..., Any]] = {
    "add": add,
    "attention": attention,
    "behind_learned": behind_learned,
    "first_and_mean": first_and_mean,
    "first_rows": first_rows,
    "gemm_f16": gemm_f16,
    "gemm_f32": gemm_f32,
    "gemm_f32_traced": traced_f32,
    "gemm_grouped": gemm_grouped,
    "gemm_i8": gemm_i8,
    "lookup": lookup,
    "most_significant": most_significant,
    "narrow": narrow,
    "norm": norm,
    "patches": patches,
    "quantize": quantize,
    "quantize_groups": quantize_groups,
    "quantize_static": quantize_static,
    "take_rows": take_rows,
}
"""Family of kernels -> the function that writes one, of its name and sizes."""


def write_kernel(kernel: Kernel, name: str) -> Any:
    """Return the ``PrimFunc`` of a kernel."""
    return FAMILIES[kernel.family](name, **dict(kernel.size))


def relax_module(program: Program) -> Any:
    """Return a module whose ``main(*inputs, *constants)`` gives the logits."""
    builder = relax.BlockBuilder()
    inputs = [*program.inputs, *(constant.tensor for constant in program.constants)]
    values = {tensor: relax.Var(tensor.name.replace(".", "_"), _type(tensor)) for tensor in inputs}
    with builder.function("main"):
        with builder.dataflow():
            functions = {
                kernel: builder.add_func(write_kernel(kernel, name), name) for kernel, name in program.names().items()
            }
            for call in program.calls:
                _emit(builder, call, functions[call.kernel], values)
            logits = builder.emit_output(values[program.output])
        builder.emit_func_output(logits, params=[values[tensor] for tensor in inputs])
    return builder.finalize()


def _type(tensor: Tensor) -> Any:
    return relax.TensorType(tensor.dimensions, tensor.dtype)


def _emit(builder: Any, call: Call, function: Any, values: dict[Tensor, Any]) -> None:
    types = [_type(tensor) for tensor in call.outputs]
    inputs = [values[tensor] for tensor in call.inputs]
    result = builder.emit(relax.call_tir(function, inputs, types if len(types) > 1 else types[0]))
    if len(types) == 1:
        values[call.outputs[0]] = result
        return
    for index, tensor in enumerate(call.outputs):
        values[tensor] = builder.emit(relax.TupleGetItem(result, index))


def compile_module(module: Any, target: tvm.target.Target) -> Any:
    """Return the compiled executable."""
    with kernel_options():
        return relax.build(module, target=target, relax_pipeline=_pipeline())


def kernel_options() -> Any:
    """Return the pass context in which kernels must be compiled."""
    # Merging the buffers of a kernel would put its registers on the heap.
    return tvm.transform.PassContext(opt_level=3, config={"tirx.disable_storage_rewrite": True})


def _pipeline() -> Any:
    """Return what is left of Relax's build pipeline where every operation is a call of a finished kernel."""
    steps = relax.transform
    return tvm.transform.Sequential(
        [
            steps.ToNonDataflow(),
            steps.RemovePurityChecking(),
            steps.CallTIRRewrite(),
            steps.StaticPlanBlockMemory(),
            steps.LowerAllocTensor(),
            steps.KillAfterLastUse(),
            steps.LowerRuntimeBuiltin(),
            steps.ComputePrimValue(),
            steps.VMShapeLower(),
            steps.AttachGlobalSymbol(),
        ]
    )
