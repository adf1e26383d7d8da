"""How far rounded queries, keys and values of one layer of a decoder move what its attention gives."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlamaModel

from benchmarks.decoder_rows import BATCH, Setting, Subject, attended, round_inward

HELD_OUT = 4
"""Test documents."""


@dataclass(frozen=True)
class Attended:
    """What came of rounding one layer's queries, keys and values.

    Attributes:
        setting: How; of its ``layers`` there is one.
        layer: Which.
        error: Root of |A' V' - A V|^2 / |A V|^2 over test documents, all else floats.
        cpu_s: Processor time that rounding took, on one thread.
    """

    setting: Setting
    layer: int
    error: float
    cpu_s: float


@torch.no_grad()
def attention_errors(subject: Subject, settings: Sequence[Setting], layer: int) -> Iterator[Attended]:
    """Round one layer in each way, behind layers with floats, on all calibration documents; yield what came of it."""
    decoder, test = subject.model.model, subject.test[:HELD_OUT]
    known, unknown = (read_by_attention(decoder, documents, layer) for documents in (subject.calibration, test))
    turns = decoder.rotary_emb(known[0], torch.arange(test.shape[1])[None])
    attention = decoder.layers[layer].self_attn
    expected = torch.cat([attended(attention, x, turns) for x in unknown])
    for setting in settings:
        student, start_s = copy.deepcopy(attention), time.process_time()
        round_inward(student, setting, known, turns)
        cpu_s = time.process_time() - start_s
        found = torch.cat([attended(student, x, turns) for x in unknown])
        error = float((found - expected).norm() / expected.norm())
        yield Attended(setting, layer, error, round(cpu_s, 1))


def read_by_attention(decoder: LlamaModel, documents: Tensor, layer: int) -> list[Tensor]:
    """Return what queries, keys and values of a layer read of documents of ids, batch by batch."""
    standing = [decoder.embed_tokens(part) for part in documents.split(BATCH)]
    turns = decoder.rotary_emb(standing[0], torch.arange(documents.shape[1])[None])
    for before in decoder.layers[:layer]:
        standing = [before(x, attention_mask=None, position_embeddings=turns) for x in standing]
    return [decoder.layers[layer].input_layernorm(x) for x in standing]
