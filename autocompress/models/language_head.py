"""The head that guesses tokens, on any encoder of the BERT family: read from a checkpoint that has one, or made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.activations import ACT2FN

from autocompress.errors import SourceError, UnsupportedError
from autocompress.models.load import adapter_of


class LanguageHead(nn.Module):
    """Logits of every token for a hidden state: ``norm(activation(dense(h))) @ rows.T + bias``.

    The decoder is tied: ``rows`` is the encoder's own token table (``token_rows``), handed in with every call, so that
    a head follows its encoder while both are trained and weighs next to nothing itself.

    Args:
        dense: From hidden channels to those of the token table.
        norm: Over the latter.
        bias: (vocabulary,).
        activation: A name that transformers knows.
    """

    def __init__(self, dense: nn.Linear, norm: nn.LayerNorm, bias: Tensor, activation: str) -> None:
        super().__init__()
        self.dense, self.norm, self.bias = dense, norm, nn.Parameter(bias.detach().clone())
        self.activation = ACT2FN[activation]

    def forward(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """Map (... x hidden channels) with a table (vocabulary x embedding channels) to logits (... x vocabulary)."""
        return nn.functional.linear(self.norm(self.activation(self.dense(hidden))), rows, self.bias)


@dataclass(frozen=True)
class HeadPaths:
    """Where a family's masked language model keeps its head.

    Attributes:
        dense, norm, bias: Paths below the model.
        activation_key: The config's key for the activation; ``None``: always gelu.
    """

    dense: str
    norm: str
    bias: str
    activation_key: str | None = None


_ROBERTA = HeadPaths("lm_head.dense", "lm_head.layer_norm", "lm_head.bias")
HEADS = {
    "bert": HeadPaths(
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
        activation_key="hidden_act",
    ),
    "distilbert": HeadPaths("vocab_transform", "vocab_layer_norm", "vocab_projector.bias", activation_key="activation"),
    "electra": HeadPaths("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head.bias"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
}
"""``model_type`` -> where its masked language model keeps the head."""


def token_rows(model: nn.Module) -> Tensor:
    """Return the token table that the encoder of ``model`` reads (vocabulary x embedding channels).

    Factorised and quantized tables are expanded; gradients flow to whatever of it is trained.
    """
    words: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    if isinstance(words, nn.Embedding):
        return words.weight
    table: Any = getattr(words, "table", words)
    rows: Tensor = words(torch.arange(table.num_embeddings, device=table.weight.device))
    return rows


def read_head(folder: Path) -> LanguageHead | None:
    """Read the head that a ``save_pretrained`` folder holds, in eval mode; ``None`` if it holds none.

    Raises:
        SourceError: The folder or its files cannot be read.
        UnsupportedError: No head of this type is known, or its decoder is not the token table.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        config: Any = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type not in HEADS:
            raise _unknown(config.model_type)
        model, loaded = transformers.AutoModelForMaskedLM.from_pretrained(
            folder, local_files_only=True, dtype="float32", output_loading_info=True
        )
    except UnsupportedError:
        raise
    except Exception as error:
        # transformers raises many kinds, as for classifiers (models.load); all mean unreadable.
        raise SourceError(
            f"The language model in {folder} cannot be read: {' '.join(str(error).split())[:200]}",
            right="A folder written by save_pretrained holds config.json and an intact model.safetensors.",
            next_step="Download or save the model again.",
        ) from error
    paths = HEADS[config.model_type]
    if any(name.startswith((paths.dense, paths.norm)) for name in loaded["missing_keys"]):
        return None
    if model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
        raise UnsupportedError(
            f"The language model in {folder} has a decoder of its own.",
            right="Heads are read whose decoder is the token table (tie_word_embeddings: true).",
            next_step="Make a head on its encoder instead, which is then fitted to text.",
        )
    activation = "gelu" if paths.activation_key is None else getattr(config, paths.activation_key)
    parts = (model.get_submodule(paths.dense), model.get_submodule(paths.norm), model.get_parameter(paths.bias))
    return LanguageHead(*parts, activation).eval()


def new_head(model: nn.Module, *, generator: torch.Generator, counts: Tensor | None = None) -> LanguageHead:
    """Make a head for the encoder of ``model``, to be fitted, in eval mode.

    Args:
        model: A classifier of the family.
        generator: Of the dense layer's weights, which are normal as BERT's are.
        counts: How often each token occurs in the text (at most vocabulary,; later ones never do): the bias then says
            how likely each is before anything is read, log((count + 1) / sum); ``None``: all alike.
    """
    config: Any = model.config
    rows = token_rows(model)
    dense = nn.Linear(_hidden_channels(model), rows.shape[1])
    nn.init.normal_(dense.weight, std=config.initializer_range, generator=generator)
    nn.init.zeros_(dense.bias)
    bias = torch.zeros(len(rows))
    if counts is not None:
        often = nn.functional.pad(counts.float(), (0, len(rows) - len(counts))) + 1
        bias = (often / often.sum()).log()
    return LanguageHead(dense, nn.LayerNorm(rows.shape[1], eps=1e-12), bias, "gelu").eval()


def _hidden_channels(model: nn.Module) -> int:
    layer = adapter_of(model).layers(model)[-1]
    return int(layer.get(layer.ffn_out).out_features)  # type: ignore[arg-type]


def _unknown(model_type: str) -> UnsupportedError:
    return UnsupportedError(
        f"The language head of models of type {model_type!r} is not known.",
        right=f"Known are those of {', '.join(HEADS)}.",
        next_step="Choose another model, or add it to HEADS in models/language_head.py.",
    )
