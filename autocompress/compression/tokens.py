"""Token selection: from layer to layer fewer tokens go on, those that others attend to most (PoWER-BERT).

Goyal et al., ICML 2020. What is static there is static here: how many tokens leave each layer. The paper learns these
counts by fine-tuning with soft masks; here they fall evenly from the longest document to a share of it, and the search
chooses the share. The last layer passes on the first token alone, which is all that the head reads: that loses nothing,
and saves most of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from autocompress.compression.method import Context, Space
from autocompress.errors import ConfigError, UnsupportedError
from autocompress.models.load import adapter_of
from autocompress.plan import Suggest
from autocompress.shape import ModelShape


@dataclass(frozen=True)
class TokenStep:
    """Let ``most_tokens[i]`` tokens go on from layer i at most; 0: all of them."""

    method: ClassVar[str] = "tokens"
    most_tokens: tuple[int, ...]


STEP = TokenStep


def suggest(trial: Suggest, shape: ModelShape, space: Space) -> TokenStep:
    """Choose the share of the longest document's tokens that reaches the last layer, or that all stay everywhere.

    They all stay where the head reads the mean of all.
    """
    if shape.head == "first_and_mean":
        return TokenStep((0,) * len(shape.layers))
    share = trial.suggest_categorical("tokens_keep", space.tokens_keep)
    scheduled = shape.with_schedule(share, space.max_tokens or shape.positions)
    return TokenStep(tuple(layer.most_tokens for layer in scheduled.layers))


def reshape(shape: ModelShape, step: TokenStep) -> ModelShape:
    """Return ``shape`` with these counts.

    Raises:
        ConfigError: There are not as many counts as layers, one is negative, or they grow from layer to layer.
        UnsupportedError: The head reads the mean of all tokens.
    """
    if shape.head == "first_and_mean" and any(step.most_tokens):
        raise UnsupportedError(
            "The plan lets fewer tokens go on in a model whose head reads the mean of all patches.",
            right="Tokens are left out where the head reads the first alone, as that of ViT and DeiT does.",
            next_step="Set search.space.tokens_keep to [all].",
        )
    counts = [most for most in step.most_tokens if most]
    if len(step.most_tokens) != len(shape.layers) or min(step.most_tokens, default=0) < 0:
        raise ConfigError(
            f"The plan lets {list(step.most_tokens)} tokens go on from {len(shape.layers)} layers.",
            right="There is one count for each layer, at least 1, or 0 where all tokens go on.",
            next_step="Correct most_tokens in the plan's tokens step.",
        )
    if counts != sorted(counts, reverse=True):
        raise ConfigError(
            f"The plan lets {list(step.most_tokens)} tokens go on, more from a later layer than from one before it.",
            right="Tokens that are gone do not come back: counts fall or stay.",
            next_step="Correct most_tokens in the plan's tokens step.",
        )
    pairs = zip(shape.layers, step.most_tokens, strict=True)
    return replace(shape, layers=tuple(replace(layer, most_tokens=most) for layer, most in pairs))


def apply(model: nn.Module, step: TokenStep, context: Context) -> nn.Module:
    """Let the layers select tokens.

    Raises:
        ConfigError: As ``reshape``.
    """
    adapter = adapter_of(model)
    before = adapter.shape(model)
    if reshape(before, step) != before:
        adapter.select_tokens(model, step.most_tokens)
    return model
