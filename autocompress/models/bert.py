"""The BERT family: encoders with a classification head on the first token, as transformers lays them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from autocompress.models.adapter import LayerModules
from autocompress.models.factorized import FactorizedEmbedding
from autocompress.models.quantized import QuantizedEmbedding
from autocompress.models.selecting import SelectingEncoder
from autocompress.models.slices import (
    select_channels,
    select_heads,
    select_hidden,
    select_linear,
    select_neurons,
    select_norm,
    select_rows,
    unsupported,
)
from autocompress.models.tensors import (
    array,
    bits_of,
    count,
    epsilon_of,
    layer_shape,
    layer_tensors,
    linear_tensors,
    norm_tensors,
    tensor,
)
from autocompress.shape import EmbeddingBits, ModelShape

TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")
"""What is summed for a token, below the embeddings; a member of the family may lack the last."""


@dataclass(frozen=True)
class BertAdapter:
    """Where one member of the family keeps its parts; satisfies ``ModelAdapter``.

    Attributes:
        name: ``model_type`` in the model's config.
        head_dense: Path of the dense layer before the classifier.
        classifier: Path of the classifier.
        head_activation: Between the two.
        encoder: Path of the list of layers, below the backbone.
        attention: Path of the self-attention module, below a layer.
        query, key, value, output, attention_norm, ffn_in, ffn_out, ffn_norm: Paths below a layer.
        activation_key: The config's key for the feed-forward activation.
        positions_follow_padding: Whether the first token uses the row after the padding id, not row 0.
    """

    name: str
    head_dense: str
    classifier: str
    head_activation: Literal["tanh", "relu", "gelu"]
    encoder: str = "encoder.layer"
    attention: str = "attention.self"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    ffn_in: str = "intermediate.dense"
    ffn_out: str = "output.dense"
    ffn_norm: str = "output.LayerNorm"
    activation_key: str = "hidden_act"
    positions_follow_padding: bool = False

    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"

    def fold(self, model: nn.Module) -> None:
        """See ``ModelAdapter.fold``; there is nothing to be folded."""

    def shape(self, model: nn.Module) -> ModelShape:
        """See ``ModelAdapter.shape``."""
        config, layers, embeddings = _config(model), self.layers(model), self._embeddings(model)
        activation = getattr(config, self.activation_key)
        if activation not in ("gelu", "relu"):
            raise unsupported(f"the activation {activation!r}", "gelu or relu")
        if getattr(config, "is_decoder", False):
            raise unsupported("causal attention", "an encoder (is_decoder: false)")
        dense, last = (model.get_submodule(path) for path in self.head_linears(model))
        table = self.token_embedding(model)
        word = embeddings.get_submodule("word_embeddings")
        return ModelShape(
            family=self.name,
            vocabulary=count(table, "num_embeddings"),
            positions=self._positions(model).shape[0],
            embedding=count(word, "embedding_dim"),
            hidden=count(dense, "in_features"),
            layers=tuple(
                layer_shape(layer, most) for layer, most in zip(layers, self._most_tokens(model), strict=True)
            ),
            classes=count(last, "out_features"),
            activation=activation,
            head_activation=self.head_activation,
            embedding_bits=_table_bits(table),
            norm_epsilon=epsilon_of(embeddings.get_submodule("LayerNorm")),
            embedding_rank=count(table, "embedding_dim") if isinstance(word, FactorizedEmbedding) else 0,
            head_bits=bits_of(dense),
        )

    def weights(self, model: nn.Module) -> dict[str, npt.NDArray[np.generic]]:
        """See ``ModelAdapter.weights``."""
        embeddings, backbone = self._embeddings(model), self._backbone(model)
        word, table = embeddings.get_submodule("word_embeddings"), self.token_embedding(model)
        found: dict[str, Tensor] = {"embeddings.word": tensor(table, "weight")}
        if isinstance(table, QuantizedEmbedding) and table.scale is not None:
            found["embeddings.scale"] = table.scale
        if isinstance(word, FactorizedEmbedding):
            found |= linear_tensors([word.expand], "embeddings.expand")
        found["embeddings.position"] = self._positions(model)
        found |= norm_tensors(embeddings.get_submodule("LayerNorm"), "embeddings.norm")
        if hasattr(backbone, "embeddings_project"):
            found |= linear_tensors([backbone.get_submodule("embeddings_project")], "embeddings.project")
        for index, layer in enumerate(self.layers(model)):
            found |= layer_tensors(layer, f"layers.{index}")
        found |= linear_tensors([model.get_submodule(self.head_dense)], "head.dense")
        found |= linear_tensors([model.get_submodule(self.classifier)], "head.classifier")
        return {name: array(values.detach()) for name, values in found.items()}

    def layers(self, model: nn.Module) -> list[LayerModules]:
        """See ``ModelAdapter.layers``."""
        names = ("query", "key", "value", "output", "attention_norm", "ffn_in", "ffn_out", "ffn_norm")
        paths = {name: getattr(self, name) for name in names}
        return [
            LayerModules(layer, **paths, head_width=count(layer.get_submodule(self.attention), "attention_head_size"))
            for layer in self._encoder(model)
        ]

    def keep_layers(self, model: nn.Module, kept: Sequence[int]) -> None:
        """See ``ModelAdapter.keep_layers``."""
        layers, most = self._encoder(model), self._most_tokens(model)
        path = f"{_prefix(model)}.{self.encoder}"
        model.set_submodule(path, nn.ModuleList([layers[index] for index in kept]))
        if any(most):
            self.select_tokens(model, [most[index] for index in kept])
        _config(model).num_hidden_layers = len(kept)

    def keep_heads(self, model: nn.Module, layer: int, kept: Sequence[int]) -> None:
        """See ``ModelAdapter.keep_heads``."""
        select_heads(self.layers(model)[layer], torch.tensor(kept))

    def keep_neurons(self, model: nn.Module, layer: int, kept: Sequence[int]) -> None:
        """See ``ModelAdapter.keep_neurons``."""
        select_neurons(self.layers(model)[layer], torch.tensor(kept))

    def select_tokens(self, model: nn.Module, most_tokens: Sequence[int]) -> None:
        """See ``ModelAdapter.select_tokens``."""
        encoder = SelectingEncoder(self.layers(model), most_tokens, getattr(_config(model), self.activation_key))
        model.set_submodule(self._encoder_path(model), encoder.train(model.training))

    def keep_hidden(self, model: nn.Module, channels: Sequence[int], units: Sequence[int]) -> None:
        """See ``ModelAdapter.keep_hidden``."""
        kept, backbone, embeddings = torch.tensor(channels), self._backbone(model), self._embeddings(model)
        if hasattr(backbone, "embeddings_project"):
            projection = select_linear(backbone.get_submodule("embeddings_project"), outputs=kept)
            backbone.set_submodule("embeddings_project", projection)
        else:
            for name in TABLES:
                if hasattr(embeddings, name):
                    embeddings.set_submodule(name, select_channels(embeddings.get_submodule(name), kept))
            embeddings.set_submodule("LayerNorm", select_norm(embeddings.get_submodule("LayerNorm"), kept))
        for layer in self.layers(model):
            select_hidden(layer, kept)
        between, dense, last = torch.tensor(units), model.get_submodule(self.head_dense), self.classifier_linear(model)
        model.set_submodule(self.head_dense, select_linear(dense, outputs=between, inputs=kept))
        model.set_submodule(self.classifier, select_linear(last, inputs=between))
        _config(model).hidden_size = len(channels)

    def hidden_norms(self, model: nn.Module) -> list[nn.Module]:
        """See ``ModelAdapter.hidden_norms``."""
        projected = hasattr(self._backbone(model), "embeddings_project")
        first = [] if projected else [self._embeddings(model).get_submodule("LayerNorm")]
        return first + self.sum_norms(model)

    def sum_norms(self, model: nn.Module) -> list[nn.Module]:
        """See ``ModelAdapter.sum_norms``."""
        return [layer.get(path) for layer in self.layers(model) for path in (layer.attention_norm, layer.ffn_norm)]

    def head_linears(self, model: nn.Module) -> tuple[str, ...]:
        """See ``ModelAdapter.head_linears``."""
        return self.head_dense, self.classifier

    def classifier_linear(self, model: nn.Module) -> nn.Module:
        """See ``ModelAdapter.classifier_linear``."""
        return model.get_submodule(self.classifier)

    def keep_tokens(self, model: nn.Module, kept: Sequence[int]) -> None:
        """See ``ModelAdapter.keep_tokens``."""
        config, embeddings, padding = _config(model), self._embeddings(model), _config(model).pad_token_id
        table = embeddings.get_submodule("word_embeddings")
        if not isinstance(table, nn.Embedding):
            raise unsupported("pruning of a token table that is factorised or quantized", "pruning before either")
        if padding not in kept:
            raise unsupported("a vocabulary without its padding token", "padding kept")
        ids = {old: new for new, old in enumerate(kept)}
        self.replace_token_embedding(model, select_rows(table, table.weight.detach()[list(kept)], ids[padding]))
        if self.positions_follow_padding:
            places = embeddings.get_submodule("position_embeddings")
            assert isinstance(places, nn.Embedding)
            rows = places.weight.detach()[padding - ids[padding] :]
            embeddings.set_submodule("position_embeddings", select_rows(places, rows, ids[padding]))
            embeddings.padding_idx = ids[padding]  # type: ignore[assignment]
        config.vocab_size = len(kept)
        for name in SPECIAL_IDS:
            if isinstance(getattr(config, name, None), int):
                setattr(config, name, ids.get(getattr(config, name)))

    def keep_positions(self, model: nn.Module, count: int) -> None:
        """See ``ModelAdapter.keep_positions``."""
        config, embeddings = _config(model), self._embeddings(model)
        places = embeddings.get_submodule("position_embeddings")
        assert isinstance(places, nn.Embedding)
        unused = int(config.pad_token_id) + 1 if self.positions_follow_padding else 0
        rows = places.weight.detach()[: unused + count]
        embeddings.set_submodule("position_embeddings", select_rows(places, rows, unused - 1))
        config.max_position_embeddings = unused + count

    def token_embedding(self, model: nn.Module) -> nn.Module:
        """See ``ModelAdapter.token_embedding``."""
        word = self._embeddings(model).get_submodule("word_embeddings")
        return word.table if isinstance(word, FactorizedEmbedding) else word

    def replace_token_embedding(self, model: nn.Module, module: nn.Module) -> None:
        """See ``ModelAdapter.replace_token_embedding``."""
        embeddings = self._embeddings(model)
        factorized = isinstance(embeddings.get_submodule("word_embeddings"), FactorizedEmbedding)
        embeddings.set_submodule("word_embeddings.table" if factorized else "word_embeddings", module)

    def _backbone(self, model: nn.Module) -> nn.Module:
        return model.get_submodule(_prefix(model))

    def _embeddings(self, model: nn.Module) -> nn.Module:
        return self._backbone(model).get_submodule("embeddings")

    def _encoder(self, model: nn.Module) -> nn.ModuleList:
        layers = self._backbone(model).get_submodule(self.encoder)
        assert isinstance(layers, nn.ModuleList)
        return layers

    def _encoder_path(self, model: nn.Module) -> str:
        return f"{_prefix(model)}.{self.encoder}".rpartition(".")[0]

    def _most_tokens(self, model: nn.Module) -> Sequence[int]:
        encoder = model.get_submodule(self._encoder_path(model))
        return encoder.most_tokens if isinstance(encoder, SelectingEncoder) else (0,) * len(self._encoder(model))

    def _positions(self, model: nn.Module) -> Tensor:
        """Return the position rows that tokens 0, 1, ... use, with the first token type added in."""
        embeddings = self._embeddings(model)
        rows = tensor(embeddings.get_submodule("position_embeddings"), "weight")
        if self.positions_follow_padding:
            rows = rows[int(_config(model).pad_token_id) + 1 :]
        if hasattr(embeddings, "token_type_embeddings"):
            rows = rows + tensor(embeddings.get_submodule("token_type_embeddings"), "weight")[0]
        return rows


BERT = BertAdapter("bert", head_dense="bert.pooler.dense", classifier="classifier", head_activation="tanh")
ROBERTA = BertAdapter(
    "roberta",
    head_dense="classifier.dense",
    classifier="classifier.out_proj",
    head_activation="tanh",
    positions_follow_padding=True,
)
ELECTRA = BertAdapter(
    "electra", head_dense="classifier.dense", classifier="classifier.out_proj", head_activation="gelu"
)
DISTILBERT = BertAdapter(
    "distilbert",
    head_dense="pre_classifier",
    classifier="classifier",
    head_activation="relu",
    encoder="transformer.layer",
    attention="attention",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    output="attention.out_lin",
    attention_norm="sa_layer_norm",
    ffn_in="ffn.lin1",
    ffn_out="ffn.lin2",
    ffn_norm="output_layer_norm",
    activation_key="activation",
)
SPECIAL_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "mask_token_id")
"""Where a config names tokens."""
XLM_ROBERTA, CAMEMBERT = (replace(ROBERTA, name=name) for name in ("xlm-roberta", "camembert"))


def _config(model: nn.Module) -> Any:
    return model.config


def _prefix(model: nn.Module) -> str:
    return str(model.base_model_prefix)


def _table_bits(module: nn.Module) -> EmbeddingBits:
    return module.bits if isinstance(module, QuantizedEmbedding) else 32
