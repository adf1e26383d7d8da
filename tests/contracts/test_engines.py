"""What the search may produce, each engine computes: students of drawn plans against their artifacts."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification

from autocompress.compiler.build import BUILDERS, build
from autocompress.compression.method import Space
from autocompress.compression.methods import apply_plan, draw, reshape_plan
from autocompress.engines import open_artifact
from autocompress.feeds import of_text
from autocompress.models.load import adapter_of
from autocompress.plan import CompressionPlan
from autocompress.shape import BITS, EMBEDDING_BITS, WEIGHT_GROUPS, Activations
from tests.compression.training_data import context_for

SPACE = Space(depth=(1, 2, 3), depth_selection=("uniform", "dynabert", "replace_one"),
              layer_orders={"replace_one": (1, 2, 0)}, hidden_keep=(0.14, 0.54, 0.77, 1.0), heads_keep=(0.2, 0.5, 1.0),
              activations=get_args(Activations), ranges="percentile", rounding_batches=2,
              weight_group=WEIGHT_GROUPS, zero_points=(False, True),
              ffn_keep=(0.1, 0.37, 0.81, 1.0), attention_bits=BITS, ffn_bits=BITS,
              head_bits=BITS, embedding_bits=EMBEDDING_BITS, align=1, distill_steps=1, vocabulary_keep=(0.7, 1.0),
              embedding_rank=(0, 9, 33), tokens_keep=("all", 1.0, 0.4, 0.05), max_tokens=64)  # fmt: skip


class Drawn:
    """A trial whose choices Hypothesis makes."""

    def __init__(self, data):
        self.data = data

    def suggest_categorical(self, name, choices):
        return self.data.draw(st.sampled_from(list(choices)), label=name)


def teacher():
    torch.manual_seed(0)
    widths = {"hidden_size": 35, "num_hidden_layers": 3, "num_attention_heads": 5, "intermediate_size": 177}
    model = BertForSequenceClassification(BertConfig(vocab_size=60, num_labels=3, **widths))
    with torch.no_grad():
        for parameter in model.parameters():
            # Signals of size 1 and of their own in every channel, so that none can be mixed up unseen.
            parameter.add_(torch.randn_like(parameter) * (0.15 if parameter.ndim == 2 else 0.3))
    return model.eval()


def with_own_widths(plan, data):
    """Give each group of linears in each layer bits of its own, as shared ones may be."""

    def own(step):
        if step.method != "quantize":
            return step
        names = "attention_in_bits", "attention_out_bits", "ffn_in_bits", "ffn_out_bits"
        widths = st.tuples(*[st.sampled_from(BITS)] * len(step.layers))
        return replace(step, **{name: data.draw(widths, label=name) for name in names})

    return CompressionPlan(tuple(map(own, plan.steps)))


def documents(data, vocabulary):
    tokens = data.draw(st.one_of(st.integers(1, 40), st.sampled_from([64, 129, 511, 512])), label="tokens")
    batch = data.draw(st.integers(1, 8), label="batch")
    rng = np.random.default_rng(tokens)
    lengths = np.append(tokens, rng.integers(1, tokens + 1, batch - 1))
    return rng.integers(0, vocabulary, (batch, tokens)), (np.arange(tokens) < lengths[:, None]).astype(np.int64)


@seed(0)  # Else the plans would be drawn by the text of the test, others whenever it is edited.
@settings(max_examples=10, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
@given(st.data())
def test_every_engine_answers_as_the_student_of_any_plan(data):
    model = teacher()
    shape = adapter_of(model).shape(model)
    plan = with_own_widths(draw(Drawn(data), shape, SPACE), data)
    student = apply_plan(model, plan, context_for(model))
    found = adapter_of(student).shape(student)
    assert found == reshape_plan(shape, plan)
    ids, mask = documents(data, found.vocabulary)
    with torch.inference_mode():
        expected = student(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits.numpy()
    for engine in BUILDERS:
        with tempfile.TemporaryDirectory() as folder:
            batch, tokens = ids.shape
            weights = adapter_of(student).weights(student)
            artifact = build(found, weights, Path(folder, "model"), engine=engine, tokens=tokens, batch=batch)
            got = open_artifact(artifact, threads=1)(of_text(ids, mask))
        np.testing.assert_allclose(got, expected, atol=tolerance(found) * np.ptp(expected), err_msg=engine)


def tolerance(shape):
    """As a share of the spread of logits: rounding in f32, or a value at the edge of a step."""
    bits = {bits for layer in shape.layers for bits in layer.bits} | {shape.head_bits}
    return 1e-4 if bits == {32} else 4e-2
