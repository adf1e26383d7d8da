"""The graph in float64, and in integers where the engines use integers: the reference that every engine must meet."""

import numpy as np
from scipy.special import erf

from autocompress.compiler.graph import emit, round_bf16
from autocompress.shape import WEIGHT_GROUP


class NumpyGraph:
    """Satisfies ``compiler.graph.Graph``; values are float64 arrays (batch x tokens x channels)."""

    def __init__(self, weights, input_ids, attention_mask, narrow=lambda x: x):
        self.weights, self.ids, self.mask, self.narrow = weights, input_ids, attention_mask, narrow

    def lookup(self, name, bits):
        word = self.weights[f"{name}.word"].astype(np.float64)
        if bits in (8, 4):
            word = word * grouped(self.weights[f"{name}.scale"], axis=1, width=word.shape[1])
        return word[self.ids]

    def positions(self, x, name):
        return x + self.weights[f"{name}.position"][: x.shape[1]]

    def patches(self, pixels):
        edge, batch = pixels.patch, len(self.pixels)
        found = [
            self.pixels[:, :, row * edge : (row + 1) * edge, column * edge : (column + 1) * edge].reshape(batch, -1)
            for row in range(pixels.rows)
            for column in range(pixels.columns)
        ]
        return np.stack(found, axis=1).astype(np.float64)

    def behind_learned(self, x, name, learned):
        first = np.zeros((len(x), learned, x.shape[2]))
        return np.concatenate([first, x], axis=1) + self.weights[f"{name}.position"]

    def norm(self, x, name, epsilon):
        centred = x - x.mean(-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
        return centred / spread * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def sum_and_norm(self, x, y, name, epsilon):
        return x + y, self.norm(x + y, name, epsilon)

    def linear(self, x, name, bits, activation=None, *, reads="dynamic", grid=None):
        weight = self.weights[f"{name}.weight"]
        if grid is not None:
            width, group = weight.shape[0], grid.group
            q, scale = quantize_groups(x.astype(np.float32), group)
            zeros = self.weights[f"{name}.zero_points"] if grid.zero_points else np.zeros((grid.count(width), 1))
            # In float64 it is no matter whether the integers are scaled before they are summed or after.
            y = (q * grouped(scale, axis=-1, width=width, group=group)) @ (
                (weight - grouped(zeros, axis=0, width=width, group=group))
                * grouped(self.weights[f"{name}.scale"], axis=0, width=width, group=group)
            )
        elif reads != "dynamic":
            step, scale, zero = (self.weights[f"{name}.{part}"] for part in ("step", "scale", "zero"))
            inverse = self.weights[f"{name}.inverse"] if reads == "smoothed" else None
            levels = quantize_static(x.astype(np.float32), step, int(zero[0]), inverse)
            y = (levels - int(zero[0])) @ weight.astype(np.int64) * (step.astype(np.float64) * scale)
        elif bits == 8:
            q, scale, zero = quantize(x.astype(np.float32))
            sums = (q.astype(np.int64) - zero) @ weight.astype(np.int64)
            y = sums * (float(scale) * self.weights[f"{name}.scale"].astype(np.float64))
        else:
            # At 16 bits the weights hold rounded values; some processors round activations as well.
            y = (self.narrow(x) if bits == 16 else x) @ weight.astype(np.float64)
        y = y + self.weights[f"{name}.bias"]
        return y if activation is None else ACTIVATIONS[activation](y)

    def attention(self, qkv, heads, head_width):
        return self.attention_received(qkv, heads, head_width)[0]

    def attention_received(self, qkv, heads, head_width):
        batch, tokens, _ = qkv.shape
        q, k, v = (
            part.reshape(batch, tokens, heads, head_width).transpose(0, 2, 1, 3) for part in np.split(qkv, 3, axis=-1)
        )
        scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(head_width)
        scores = scores + np.where(self.mask == 0, -3.0e38, 0.0)[:, None, None, :]
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares = shares / shares.sum(-1, keepdims=True)
        others = (self.mask != 0)[:, :, None] & ~np.eye(tokens, dtype=bool)  # Real tokens that look, at others.
        received = np.einsum("bhij,bij->bj", shares, others)
        return (shares @ v).transpose(0, 2, 1, 3).reshape(batch, tokens, heads * head_width), received

    def most_significant(self, received, most):
        ranked = np.where(self.mask == 0, -1.0, received)
        ranked[:, 0] = np.inf
        places = np.argsort(-ranked, axis=1, kind="stable")[:, :most]
        self.mask = np.take_along_axis(self.mask, places, 1)
        return places

    def take(self, x, places):
        return np.take_along_axis(x, places[:, :, None], 1)

    def add(self, x, y):
        return x + y

    def first_token(self, x):
        return x[:, 0]

    def first_and_mean(self, x, learned):
        return np.concatenate([x[:, 0], x[:, learned:].mean(1)], axis=-1)


ACTIVATIONS = {
    "gelu": lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
}


def grouped(scale, *, axis, width, group=WEIGHT_GROUP):
    """Repeat each scale over its group of channels."""
    if scale.shape[axis] == 1 and width > group:
        return scale.astype(np.float64)
    repeated = np.repeat(scale.astype(np.float64), group, axis=axis)
    return np.take(repeated, np.arange(width), axis=axis)


def quantize(x):
    """ONNX DynamicQuantizeLinear of a float32 tensor, in float32: (uint8 as int32, scale, zero point)."""
    low, high = np.float32(min(x.min(), 0)), np.float32(max(x.max(), 0))
    scale = np.float32((high - low) / np.float32(255)) if high > low else np.float32(1)
    zero = int(np.clip(np.rint(-low / scale), 0, 255))
    return np.clip(np.rint(x / scale).astype(np.int32) + zero, 0, 255), scale, zero


def quantize_static(x, step, zero, inverse=None):
    """Return the levels (int32) of float32 ``x`` (... x channels) over a fixed range, in float32."""
    steps = np.rint(x / step if inverse is None else x * inverse)
    return np.clip(steps.astype(np.float64) + zero, 0, 255).astype(np.int32)


def quantize_groups(x, group=WEIGHT_GROUP):
    """Return (levels as int32, scale (... x groups)) of float32 (... x channels), in float32.

    ONNX Runtime's MatMulNBits at accuracy level 4: 127 / max|x| of each token and group times x, half to even.
    """
    width = x.shape[-1]
    x = np.concatenate([x, np.zeros((*x.shape[:-1], -width % group), np.float32)], -1)
    split = x.reshape(*x.shape[:-1], -1, group)
    largest = np.abs(split).max(-1)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    levels = np.rint(split * inverse[..., None]).astype(np.int32)
    return levels.reshape(x.shape)[..., :width], largest / np.float32(127)


NARROW = {
    "uint16": lambda x: round_bf16(x.astype(np.float32)).astype(np.float64),
    "float16": lambda x: x.astype(np.float16).astype(np.float64),
    "float32": lambda x: x,
}
"""How a processor stores what it multiplies 16-bit weights with (``HalfDot.stored``) -> what becomes of it there."""


def reference_of_images(shape, weights, pixels, narrow=lambda x: x):
    """The same of images (batch x channels x height x width)."""
    graph = NumpyGraph(weights, None, np.ones((len(pixels), shape.positions)), narrow)
    graph.pixels = pixels
    return emit(graph, shape)


def reference(shape, weights, input_ids, attention_mask, narrow=lambda x: x):
    """Return the logits (batch x classes) in float64; ``narrow`` rounds what 16-bit weights are multiplied with."""
    return emit(NumpyGraph(weights, input_ids, attention_mask, narrow), shape)
