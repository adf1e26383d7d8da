"""An encoder whose layers pass on the tokens that others attend to most, as PoWER-BERT does.

Goyal et al., ICML 2020, section 3: the significance of a token is the attention that it receives, summed over heads and
over the tokens that look; the diagonal is left out, as in the authors' code. Between a layer's attention and what comes
after it, the most significant tokens go on, the first always. A schedule of counts is the same for every document, so
that graphs of fixed dimensions run it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from autocompress.models.adapter import LayerModules

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": functional.gelu, "relu": functional.relu}
_HIDDEN = -3.0e38
"""Added to the score of padding."""


class SelectingEncoder(nn.Module):
    """Runs layers in order; takes the place of the encoder that they come from.

    A layer that passes on fewer tokens than reach it is run part by part, without dropout; another one as it is.

    Args:
        layers: First to last.
        most_tokens: See ``LayerShape.most_tokens``, one a layer.
        activation: Key of ``ACTIVATIONS``, of the feed-forward blocks.
    """

    def __init__(self, layers: Sequence[LayerModules], most_tokens: Sequence[int], activation: str) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layer.layer for layer in layers)
        self.most_tokens = tuple(most_tokens)
        self._parts, self._activation = tuple(layers), ACTIVATIONS[activation]

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Return the hidden states (batch x tokens left x channels), the first token first.

        Args:
            hidden_states: (batch x tokens x channels).
            attention_mask: (batch x 1 x tokens that look x tokens), true where a token is seen, or what is added to
                scores; ``None``: all are seen.
        """
        hidden, mask = hidden_states, attention_mask
        for layer, most in zip(self._parts, self.most_tokens, strict=True):
            if 0 < most < hidden.shape[1]:
                real = _real(mask, hidden)
                first_alone = most == 1 and layer is self._parts[-1]
                hidden, real = self._pass_on(layer, hidden, real, most=most, first_alone=first_alone)
                mask = _added(real)[:, None, None, :]
            else:
                hidden = layer.layer(hidden, mask)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden)

    def _pass_on(
        self, layer: LayerModules, hidden: Tensor, real: Tensor, *, most: int, first_alone: bool
    ) -> tuple[Tensor, Tensor]:
        before = layer.order == "pre"
        read: Tensor = layer.get(layer.attention_norm)(hidden) if before else hidden

        def heads(path: str) -> Tensor:
            channels: Tensor = layer.get(path)(read)
            return channels.reshape(*channels.shape[:2], -1, layer.head_width).transpose(1, 2)

        q, k, v = heads(layer.query), heads(layer.key), heads(layer.value)
        scores = q @ k.transpose(-1, -2) * layer.head_width**-0.5 + _added(real)[:, None, None, :]
        shares = scores.softmax(-1)
        mixed = (shares @ v).transpose(1, 2).flatten(2)
        places = torch.zeros_like(real[:, :1], dtype=torch.int64)
        if not first_alone:
            places = most_significant(received(shares, real), real, most)
        mixed, hidden = (rows.take_along_dim(places[:, :, None], 1) for rows in (mixed, hidden))
        hidden = layer.get(layer.output)(mixed) + hidden
        real = real.gather(1, places)
        if before:
            return hidden + self._feed_forward(layer, layer.get(layer.ffn_norm)(hidden)), real
        hidden = layer.get(layer.attention_norm)(hidden)
        outer: Tensor = layer.get(layer.ffn_norm)(self._feed_forward(layer, hidden) + hidden)
        return outer, real

    def _feed_forward(self, layer: LayerModules, hidden: Tensor) -> Tensor:
        inner = self._activation(layer.get(layer.ffn_in)(hidden))
        fed: Tensor = layer.get(layer.ffn_out)(inner)
        return fed


class SelectingLayer(nn.Module):
    """A ``SelectingEncoder`` as the only layer of a model that goes through its layers itself."""

    def __init__(self, encoder: SelectingEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Tensor:
        """See ``SelectingEncoder.forward``."""
        hidden: Tensor = self.encoder(hidden_states, attention_mask).last_hidden_state
        return hidden


def received(shares: Tensor, real: Tensor) -> Tensor:
    """Return the significance of each token (batch x tokens).

    Args:
        shares: Attention (batch x heads x tokens that look x tokens), rows of sum 1.
        real: (batch x tokens) bool, false for padding, whose looks do not count.
    """
    looks = shares.detach().sum(1) * real[:, :, None]
    return looks.sum(1) - looks.diagonal(dim1=1, dim2=2)


def most_significant(significance: Tensor, real: Tensor, most: int) -> Tensor:
    """Return the places (batch x most): the first token, the most significant real ones, padding; of equals the first.

    Args:
        significance: (batch x tokens), at least 0.
        real: (batch x tokens) bool.
        most: At most as many as there are tokens.
    """
    ranked = significance.masked_fill(~real, -1.0)
    ranked[:, 0] = torch.inf
    return ranked.sort(dim=1, descending=True, stable=True).indices[:, :most]


def _real(mask: Tensor | None, hidden: Tensor) -> Tensor:
    if mask is None:
        return torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    seen = mask if mask.dtype == torch.bool else mask == 0
    return seen[:, 0, 0, :].expand(hidden.shape[:2])


def _added(real: Tensor) -> Tensor:
    return torch.zeros(real.shape, device=real.device).masked_fill(~real, _HIDDEN)
