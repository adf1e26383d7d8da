"""What ``benchmarks.engines`` compares: one model, made ready by AutoCompress and by other projects' own tools."""

from __future__ import annotations

import copy
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autocompress.compiler.build import build
from autocompress.compression import quantization
from autocompress.compression.method import Context
from autocompress.compression.recipes.teacher import TeacherOutputs
from autocompress.cost import Artifact
from autocompress.devices.load import load_profile
from autocompress.engines import Ids
from autocompress.models.load import adapter_of
from autocompress.shape import WEIGHT_GROUP, Bits, by_block

CALIBRATION_INPUTS = 16
PRODUCTS = ("MatMul", "Gemm")
INPUTS = ("input_ids", "attention_mask")


@dataclass(frozen=True)
class Subject:
    """A classifier at one length, or of any, and the folder that its artifacts are written to.

    Attributes:
        model: A transformers classifier, in eval mode.
        tokens: Of the one sequence that is run; the most, where documents tell their own lengths.
        folder: Empty at first.
        documents: Ids and mask (1 x tokens) of each calibration document; without any, random ones of one length.
    """

    model: nn.Module
    tokens: int
    folder: Path
    documents: Sequence[tuple[Ids, Ids]] = ()

    def inputs(self, number: int, *, padded: bool = False) -> Iterator[tuple[Ids, Ids]]:
        """Yield ids (1 x tokens) and their mask, every second one padded from its middle on if so asked."""
        rng = np.random.default_rng(0)
        config: Any = self.model.config
        for index in range(number):
            ids = rng.integers(0, config.vocab_size, (1, self.tokens), dtype=np.int64)
            mask = np.ones_like(ids)
            if padded and index % 2:
                mask[:, self.tokens // 2 :] = 0
            yield ids, mask

    def calibration(self, *, padded: bool = False) -> list[dict[str, Ids]]:
        """Return what tools that measure activations are given; all of one length if ``padded``."""
        found = self.documents or list(self.inputs(CALIBRATION_INPUTS))
        if padded:
            found = [[np.pad(each, ((0, 0), (0, self.tokens - each.shape[1]))) for each in pair] for pair in found]
        return [dict(zip(INPUTS, pair, strict=True)) for pair in found]

    @cached_property
    def traced(self) -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
        """The classifier as exporters want it, and what it is traced with."""
        ids = torch.ones((1, self.tokens), dtype=torch.int64)
        return LogitsOnly(self.model).eval(), (ids, ids.clone())

    @cached_property
    def exported(self) -> Path:
        """The model as ``torch.onnx`` writes it, for exactly this length or, with documents, for any.

        The exporter is the one that traces: the newer one needs ``onnxscript``, which AutoCompress does not install.
        """
        path, (module, example) = self.folder / "exported.onnx", self.traced
        names = {"input_names": list(INPUTS), "output_names": ["logits"]}
        free = {"dynamic_axes": dict.fromkeys(INPUTS, {1: "tokens"})} if self.documents else {}
        torch.onnx.export(module, example, str(path), opset_version=17, dynamo=False, **names, **free)
        return path

    @cached_property
    def prepared(self) -> Path:
        """``exported``, as ONNX Runtime wants it before static quantization."""
        from onnxruntime.quantization.shape_inference import quant_pre_process

        path = self.folder / "prepared.onnx"
        quant_pre_process(str(self.exported), str(path), skip_symbolic_shape=True)
        return path

    @cached_property
    def read_from_onnx(self) -> Any:
        """``exported``, as OpenVINO reads it."""
        import openvino

        return openvino.Core().read_model(self.exported)

    @cached_property
    def read_from_torch(self) -> Any:
        """The model as OpenVINO converts it from torch, for exactly this length."""
        import openvino

        module, example = self.traced
        found = openvino.convert_model(module, example_input=example)
        found.reshape({port: [1, self.tokens] for port in found.inputs})
        return found


class LogitsOnly(nn.Module):
    """A classifier as exporters want it: tensors in, one tensor out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


@dataclass(frozen=True)
class Contestant:
    """One row of the table.

    Attributes:
        name: Of the row.
        bits: Of its weights: rows of equal bits are compared.
        build: Writes its artifact.
        quick: Whether the quick run has it.
        needs: Packages and commands without which it is missing.
        peer: Whether it is what AutoCompress's compiled artifact is compared with.
    """

    name: str
    bits: Bits
    build: Callable[[Subject], Artifact]
    quick: bool = False
    needs: tuple[str, ...] = ()
    peer: bool = True

    @property
    def missing(self) -> tuple[str, ...]:
        """What of ``needs`` is not installed."""
        return tuple(need for need in self.needs if find_spec(need) is None and shutil.which(need) is None)


def save_torch(subject: Subject, *, engine: str) -> Artifact:
    """Save the whole module: pruned layers fit no config."""
    path = subject.folder / "torch.pt"
    if not path.exists():
        torch.save(subject.model, path)
    return Artifact(path, engine, subject.tokens)


def export(subject: Subject) -> Artifact:
    """Export the model to ONNX, f32."""
    return Artifact(subject.exported, "onnxruntime", subject.tokens)


def round_dynamic(subject: Subject) -> Artifact:
    """Round the exported weights to int8, activations as the model runs."""
    from onnxruntime.quantization import quantize_dynamic

    path = subject.folder / "dynamic.onnx"
    quantize_dynamic(str(subject.exported), str(path), per_channel=True, reduce_range=_saturates())
    return Artifact(path, "onnxruntime", subject.tokens)


def round_static(subject: Subject, *, operators: tuple[str, ...] | None, ranges: str = "MinMax") -> Artifact:
    """Round weights (a channel) and activations to int8 with fixed scales, in QDQ form; all operators if ``None``.

    ``ranges`` is how activations are calibrated: ``MinMax``, ``Percentile``, ``Entropy``; all but the first demand
    documents of one length.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Documents(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.inputs = iter(subject.calibration(padded=ranges != "MinMax"))

        def get_next(self) -> dict[str, Ids] | None:
            return next(self.inputs, None)

    path = subject.folder / f"static-{'all' if operators is None else 'products'}-{ranges}.onnx"
    quantize_static(
        str(subject.prepared),
        str(path),
        Documents(),
        calibrate_method=CalibrationMethod[ranges],
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=operators,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        reduce_range=_saturates(),
    )
    return Artifact(path, "onnxruntime", subject.tokens)


def _saturates() -> bool:
    """Whether products of uint8 and int8 saturate here: ONNX Runtime's manual then asks for weights of 7 bits."""
    host = load_profile("host")
    return host.architecture == "x86_64" and not {"avx_vnni", "avx512_vnni"} & set(host.isa)


def round_blocks(subject: Subject, *, symmetric: bool = True) -> Artifact:
    """Round the exported weights to int4 in blocks, multiplied in int8 (accuracy level 4)."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    path, model = subject.folder / f"blocks-{symmetric}.onnx", onnx.load(subject.exported)
    options = {"bits": 4, "block_size": WEIGHT_GROUP, "is_symmetric": symmetric, "accuracy_level": 4}
    quantizer = MatMulNBitsQuantizer(model, **options)
    quantizer.process()
    quantizer.model.save_model_to_file(str(path), False)
    return Artifact(path, "onnxruntime", subject.tokens)


def convert(subject: Subject, *, source: str, bits: Bits, fitted: str = "") -> Artifact:
    """Convert the model from ``source``, onnx or torch, for OpenVINO, and let NNCF round it."""
    import openvino

    model = subject.read_from_onnx if source == "onnx" else subject.read_from_torch
    path = subject.folder / f"openvino-{source}-{bits}{fitted}.xml"
    rounded = model if bits == 32 else round_nncf(model.clone(), subject, bits, fitted=fitted)
    openvino.save_model(rounded, path, compress_to_fp16=False)
    return Artifact(path.with_suffix(".bin"), "openvino-f32" if bits == 32 else "openvino", subject.tokens)


def round_nncf(model: Any, subject: Subject, bits: Bits, *, fitted: str = "") -> Any:
    """Return ``model`` after NNCF's post-training quantization (8), or with INT4_SYM weights in groups (4).

    These are rounded to nearest, or ``fitted`` to documents: ``awq`` (activation-aware), ``scale_estimation``.
    """
    os.environ.setdefault("NNCF_CI", "1")  # It would report each use to its makers.
    import nncf

    documents = subject.calibration()
    data = nncf.Dataset(documents)
    if bits == 8:
        return nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(documents))
    # Where channels are no multiple of a group, smaller groups: else NNCF would leave that weight as it is.
    adjust = nncf.AdvancedCompressionParameters(group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST)
    return nncf.compress_weights(
        model,
        mode=nncf.CompressWeightsMode.INT4_SYM,
        group_size=WEIGHT_GROUP,
        ratio=1.0,
        advanced_parameters=adjust,
        **({"dataset": data, fitted: True} if fitted else {}),
    )


def ours(subject: Subject, *, engine: str, bits: Bits) -> Artifact:
    """Round the model as AutoCompress does and build it for ``engine``."""
    model = subject.model
    if bits != 32:
        depth = len(adapter_of(model).layers(model))
        step = quantization.QuantizeStep(*by_block((bits,) * depth, (bits,) * depth), bits)
        model = quantization.apply(copy.deepcopy(model), step, _NO_DATA)
    adapter = adapter_of(model)
    stem = subject.folder / f"ours-{bits}"
    return build(adapter.shape(model), adapter.weights(model), stem, engine=engine, tokens=subject.tokens)


@contextmanager
def silenced() -> Iterator[None]:
    """Keep back what the tools tell of their progress."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _openvino(source: str, bits: Bits) -> Contestant:
    name = f"openvino {NAMES[bits]}, from {source}"
    needs = ("openvino",) if bits == 32 else ("openvino", "nncf")
    build = partial(convert, source=source, bits=bits)
    # Of the two ways in, each precision's faster one, as measured.
    return Contestant(name, bits, build, quick=(source == "onnx") == (bits == 32), needs=needs)


NAMES: dict[Bits, str] = {32: "f32", 8: "int8", 4: "int4"}
TORCH = "torch eager f32"
PEERS = (
    Contestant(TORCH, 32, partial(save_torch, engine="torch"), quick=True),
    Contestant("torch.compile f32", 32, partial(save_torch, engine="torch.compile"), needs=("g++",)),
    Contestant("exported f32, onnxruntime", 32, export, quick=True),
    Contestant("exported int8 dynamic, onnxruntime", 8, round_dynamic, quick=True),
    Contestant("exported int8 static, onnxruntime", 8, partial(round_static, operators=None)),
    Contestant("exported int8 static products, onnxruntime", 8, partial(round_static, operators=PRODUCTS)),
    Contestant("exported int4, onnxruntime", 4, round_blocks, needs=("onnx_ir",)),
    *(_openvino(source, bits) for bits in NAMES for source in ("onnx", "torch")),
)
_NO_DATA = Context(batches=lambda _steps, _seed: (), teacher=TeacherOutputs(nn.Module()))
OURS = {bits: f"tvm {name}" for bits, name in NAMES.items()}
CONTESTANTS = (
    *(Contestant(OURS[bits], bits, partial(ours, engine="tvm", bits=bits), quick=True, peer=False) for bits in NAMES),
    *(
        Contestant(f"onnxruntime {NAMES[bits]}", bits, partial(ours, engine="onnxruntime", bits=bits), quick=True)
        for bits in NAMES
    ),
    *PEERS,
)
"""All rows: what AutoCompress compiles, what it builds for ONNX Runtime, and what is made by others' tools."""
