"""From a shape and its weights to an artifact on disk, for each engine."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from autocompress.compiler.graph import Array, Weights, weight_specs
from autocompress.cost import Artifact
from autocompress.engines import BUNDLED_CONSTANTS, append_constants
from autocompress.errors import UnsupportedError
from autocompress.feeds import Feed
from autocompress.shape import BITS, EMBEDDING_BITS, WEIGHT_GROUPS, LayerShape, ModelShape

if TYPE_CHECKING:
    from autocompress.compiler.program import Program
    from autocompress.compiler.target import Target
    from autocompress.compiler.tuning_log import TuningLog

MOST_BATCH = 64
"""Most sequences that a library is compiled for; more of them gain nothing on the processors meant here."""
Describe: TypeAlias = "Target | Mapping[str, object] | None"
"""A target, the keys and values that describe one (``Target.read``), or ``None`` for this machine."""

Container: TypeAlias = Literal["so", "tar"]
"""What a compiled model is written as: a shared library, or the objects of one, to be linked where it runs."""


@dataclass(frozen=True)
class Job:
    """What a builder is to write; the arguments of ``build``."""

    shape: ModelShape
    weights: Weights
    path_stem: Path
    tokens: int
    batch: int
    target: Describe
    tuning: TuningLog | None
    container: Container


Builder: TypeAlias = Callable[[Job], Path]
"""Returns the file that it wrote."""


def build(
    shape: ModelShape,
    weights: Weights,
    path_stem: Path,
    *,
    engine: str,
    tokens: int,
    batch: int = 1,
    target: Describe = None,
    tuning: TuningLog | None = None,
    container: Container = "so",
) -> Artifact:
    """Write the artifact of a model.

    Args:
        shape: The model; checked before anything is compiled.
        weights: Every tensor of ``weight_specs(shape)``.
        path_stem: Path without the suffix, which the engine decides (``.onnx``, ``.so``, ``.tar``).
        engine: Key of ``BUILDERS``.
        tokens: Sequence length to compile for; an ONNX model takes any.
        batch: Sequences that a compiled library runs at once; an ONNX model takes any number.
        target: Processor to compile for. An ONNX model runs on any.
        tuning: Says which tiles are fast on the target; by default the log that is kept for it, if there is one.
        container: What a compiled model is written as; ``tar`` needs no linker here, but ``runtime.link`` there.

    Raises:
        UnsupportedError: The engine, target, a width, bits or the number of tokens or sequences is none that can be
            built, the weights are not those of the shape, or ``tuning`` is of another target.
        StorageError: The target's tuning log is damaged.
        MissingDependencyError: There is no linker.
    """
    if engine not in BUILDERS:
        raise UnsupportedError(
            f"Nothing can be built for the engine {engine!r}.",
            right=f"Engines are {', '.join(BUILDERS)}.",
            next_step="Set device.engine to one of them.",
        )
    check_shape(shape, tokens)
    _check_batch(batch)
    _check_weights(shape, weights)
    path = BUILDERS[engine](Job(shape, weights, path_stem, tokens, batch, target, tuning, container))
    return Artifact(path, engine, tokens, batch)


def check_shape(shape: ModelShape, tokens: int) -> None:
    """Refuse what no kernel can compute.

    Raises:
        UnsupportedError: A layer has no heads or neurons, bits are not in ``BITS``, or tokens are out of range.
    """
    if not 1 <= tokens <= shape.positions:
        raise UnsupportedError(
            f"The model is asked to run on {tokens} tokens.",
            right=f"It has positions for 1 to {shape.positions} tokens.",
            next_step="Set task.max_tokens to a length in that range.",
        )
    if shape.pixels is not None and tokens != shape.positions:
        raise UnsupportedError(
            f"A model that reads images is asked to run on {tokens} tokens.",
            right=f"Its images have {shape.positions}, no more and no fewer.",
            next_step="Leave out task.max_tokens.",
        )
    for index, layer in enumerate(shape.layers):
        _check_layer(index, layer)
        if layer.most_tokens < 0:
            raise UnsupportedError(
                f"Layer {index} passes on {layer.most_tokens} tokens.",
                right="It passes on at least 1, or 0 for all of them.",
                next_step="Correct most_tokens in the plan's tokens step.",
            )
    if shape.embedding_rank < 0:
        raise UnsupportedError(
            f"The token table has the rank {shape.embedding_rank}.",
            right="A rank is at least 1, or 0 for a table that is not factorised.",
            next_step="Correct embedding_rank in the plan.",
        )
    _check_bits("The token embedding", shape.embedding_bits, EMBEDDING_BITS)
    _check_bits("The head", shape.head_bits)


def _check_batch(batch: int) -> None:
    if not 1 <= batch <= MOST_BATCH:
        raise UnsupportedError(
            f"The model is asked to run {batch} sequences at once.",
            right=f"It runs 1 to {MOST_BATCH}.",
            next_step="Split the sequences into smaller batches.",
        )


def _check_layer(index: int, layer: LayerShape) -> None:
    for what in ("heads", "head_width", "ffn"):
        if getattr(layer, what) < 1:
            raise UnsupportedError(
                f"Layer {index} has {what} = {getattr(layer, what)}.",
                right="Every layer keeps at least one head and one neuron.",
                next_step="Drop the whole layer instead, or raise its keep_ratio.",
            )
    if layer.weight_group not in WEIGHT_GROUPS:
        raise UnsupportedError(
            f"Weights of layer {index} are in groups of {layer.weight_group} input channels.",
            right=f"Groups are of {', '.join(map(str, WEIGHT_GROUPS))}.",
            next_step="Correct weight_group in the plan's quantize step.",
        )
    for bits in layer.bits[:2]:
        _check_bits(f"Attention of layer {index}", bits)
    for bits in layer.bits[2:]:
        _check_bits(f"The feed-forward block of layer {index}", bits)


def _check_bits(where: str, bits: int, known: tuple[int, ...] = BITS) -> None:
    if bits not in known:
        raise UnsupportedError(
            f"{where} is asked for weights of {bits} bits.",
            right=f"Bits are one of {', '.join(map(str, known))}.",
            next_step="Choose one of them in the plan.",
        )


def _check_weights(shape: ModelShape, weights: Weights) -> None:
    for name, spec in weight_specs(shape).items():
        found = weights[name].shape if name in weights else None
        if found != spec.dimensions:
            raise UnsupportedError(
                f"The tensor {name} is {'missing' if found is None else f'of dimensions {found}'}.",
                right=f"The shape asks for {spec.dimensions}.",
                next_step="Take shape and weights from the same model.",
            )


def _build_onnx(job: Job) -> Path:
    from autocompress.compiler.onnx_graph import write_onnx

    return write_onnx(job.shape, job.weights, job.path_stem.with_name(f"{job.path_stem.name}.onnx"))


def _build_tvm(job: Job) -> Path:
    from autocompress.compiler.linker import linker
    from autocompress.compiler.lowering import lower
    from autocompress.compiler.memory import activation_bytes
    from autocompress.compiler.relax_graph import compile_module, relax_module
    from autocompress.compiler.target import Target, instructions, machine_of

    target = Target.of(job.target)
    llvm, log = target.llvm(), _log(job, str(target))
    link = None if job.container == "tar" else linker(target)
    machine = machine_of(llvm)
    tiles = log.tiles(machine)
    program = log.traced(lower(job.shape, batch=job.batch, tokens=job.tokens, machine=machine, tiles=tiles))
    about = {"tokens": job.tokens, "batch": job.batch, "vocabulary": job.shape.vocabulary, "target": str(target)}
    feeds = [Feed(tensor.name, tensor.dimensions, tensor.dtype).to_dict() for tensor in program.inputs]
    about |= {"kernels": [str(kernel) for kernel in program.names()], "tiles": program.tiles(), "tuning": log.digest}
    about |= {"feeds": feeds, "activation_bytes": activation_bytes(program), "instructions": instructions(llvm)}
    executable = compile_module(relax_module(program), llvm)
    path = job.path_stem.with_name(f"{job.path_stem.name}.{job.container}")
    partial = path.with_name(f"{path.name}.partial.{job.container}")
    if link is None:
        _write_bundle(executable, partial, _packed(program, job.weights), about)
    else:
        executable.export_library(str(partial), fcompile=link)
        append_constants(partial, _packed(program, job.weights), about)
    return partial.replace(path)


def _log(job: Job, target: str) -> TuningLog:
    from autocompress.compiler.tuning_log import find_log

    log = find_log(target) if job.tuning is None else job.tuning
    if log.target != target:
        raise UnsupportedError(
            f"A tuning log of {log.target} is given for {target}.",
            right="What is fast on one processor says nothing of another.",
            next_step="Pass the log of the target, or none.",
        )
    return log


def _packed(program: Program, weights: Weights) -> Iterator[tuple[str, Array]]:
    for constant in program.constants:
        yield constant.tensor.name, constant.pack(weights)


def _write_bundle(
    executable: Any, path: Path, constants: Iterator[tuple[str, Array]], about: Mapping[str, object]
) -> None:
    def bundle(output: str, objects: Sequence[str]) -> None:
        with tarfile.open(output, "w") as files:
            for file in (*map(Path, objects), rest):
                files.add(file, BUNDLED_CONSTANTS if file == rest else file.name)

    rest = path.with_suffix(".bin")
    rest.write_bytes(b"")
    try:
        append_constants(rest, constants, about)
        executable.export_library(str(path), fcompile=bundle)
    finally:
        rest.unlink()


BUILDERS: dict[str, Builder] = {"onnxruntime": _build_onnx, "tvm": _build_tvm}
"""Engine name -> writer of its artifact."""
