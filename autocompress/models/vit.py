"""Vision transformers: encoders of image patches with norms before their parts, as transformers lays them out.

ViT (Dosovitskiy et al., ICLR 2021), DeiT (Touvron et al., ICML 2021), DINOv2 (Oquab et al. 2023), also with registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from autocompress.models.adapter import LayerModules, refuse_of_images
from autocompress.models.selecting import SelectingEncoder, SelectingLayer
from autocompress.models.slices import (
    select_heads,
    select_hidden,
    select_linear,
    select_neurons,
    select_norm,
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
from autocompress.shape import Head, ModelShape, Pixels

PROJECTION = "patch_embeddings.projection"
"""Path of the convolution that makes a token of a patch, below the embeddings."""


@dataclass(frozen=True)
class VitAdapter:
    """Where one member of the family keeps its parts; satisfies ``ModelAdapter``.

    Attributes:
        name: ``model_type`` in the model's config.
        head: What the classifier reads.
        learned: Names of the learned tokens that positions are added to, and that come first, in that order.
        registers: Name of those that follow and have none; "" where there are none.
        encoder: Path of the list of layers, below the backbone.
        attention_norm, ffn_norm: Paths below a layer.
        scales: Below a layer, what multiplies the outputs of attention and feed-forward, channel by channel.
    """

    name: str
    head: Head = "first"
    learned: tuple[str, ...] = ("cls_token",)
    registers: str = ""
    encoder: str = "layers"
    attention_norm: str = "layernorm_before"
    ffn_norm: str = "layernorm_after"
    scales: tuple[str, ...] = ()

    auto_class: ClassVar[str] = "AutoModelForImageClassification"

    def fold(self, model: nn.Module) -> None:
        """See ``ModelAdapter.fold``; scales are 1 afterwards, and stay so in training."""
        config = _config(model)
        for layer in self.layers(model):
            for path, scale in zip((layer.output, layer.ffn_out), self.scales, strict=False):
                factor, linear = layer.get(scale).get_parameter("lambda1"), layer.get(path)
                assert isinstance(linear, nn.Linear)
                with torch.no_grad():
                    linear.weight.mul_(factor[:, None])
                    linear.bias.mul_(factor)
                    factor.fill_(1.0)
                factor.requires_grad_(False)
            for path in (layer.query, layer.key, layer.value):
                linear = layer.get(path)
                if getattr(linear, "bias", None) is None:
                    linear.register_parameter("bias", nn.Parameter(torch.zeros(count(linear, "out_features"))))
        config.qkv_bias = True
        if self.scales:
            config.layerscale_value = 1.0  # What a folded model that is saved and loaded begins with.

    def shape(self, model: nn.Module) -> ModelShape:
        """See ``ModelAdapter.shape``."""
        config, layers, classifier = _config(model), self.layers(model), model.get_submodule("classifier")
        if config.hidden_act not in ("gelu", "relu"):
            raise unsupported(f"the activation {config.hidden_act!r}", "gelu or relu")
        if getattr(config, "use_swiglu_ffn", False):
            raise unsupported("a gated feed-forward block", "use_swiglu_ffn: false")
        norm, projection = self._backbone(model).get_submodule("layernorm"), self._projection(model)
        patch, height, width = projection.kernel_size[0], *_pair(config.image_size)
        tokens = self._tokens(model).shape[0]
        return ModelShape(
            family=self.name,
            vocabulary=0,
            positions=tokens,
            embedding=projection.out_channels,
            hidden=projection.out_channels,
            layers=tuple(layer_shape(*pair) for pair in zip(layers, self._most_tokens(model), strict=True)),
            classes=count(classifier, "out_features"),
            activation=config.hidden_act,
            norm_epsilon=epsilon_of(norm),
            head_bits=bits_of(classifier),
            order="pre",
            head=self.head,
            pixels=Pixels(projection.in_channels, height, width, patch, tokens - (height // patch) * (width // patch)),
        )

    def weights(self, model: nn.Module) -> dict[str, npt.NDArray[np.generic]]:
        """See ``ModelAdapter.weights``."""
        projection = self._projection(model)
        assert projection.bias is not None
        found: dict[str, Tensor] = {
            "embeddings.patch.weight": projection.weight.flatten(1).T,
            "embeddings.patch.bias": projection.bias,
            "embeddings.position": self._tokens(model),
        }
        for index, layer in enumerate(self.layers(model)):
            found |= layer_tensors(layer, f"layers.{index}")
            assert all(bool((layer.get(scale).get_parameter("lambda1") == 1).all()) for scale in self.scales), "folded"
        found |= norm_tensors(self._backbone(model).get_submodule("layernorm"), "norm")
        found |= linear_tensors([self.classifier_linear(model)], "head.classifier")
        return {name: array(values.detach()) for name, values in found.items()}

    def layers(self, model: nn.Module) -> list[LayerModules]:
        """See ``ModelAdapter.layers``."""
        return [
            LayerModules(
                layer,
                query="attention.q_proj",
                key="attention.k_proj",
                value="attention.v_proj",
                output="attention.o_proj",
                attention_norm=self.attention_norm,
                ffn_in="mlp.fc1",
                ffn_out="mlp.fc2",
                ffn_norm=self.ffn_norm,
                head_width=count(layer.get_submodule("attention"), "head_dim"),
                order="pre",
            )
            for layer in self._encoder(model)
        ]

    def keep_layers(self, model: nn.Module, kept: Sequence[int]) -> None:
        """See ``ModelAdapter.keep_layers``."""
        layers, most = self._encoder(model), self._most_tokens(model)
        self._put(model, [layers[index] for index in kept])
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
        encoder = SelectingEncoder(self.layers(model), most_tokens, _config(model).hidden_act)
        self._put(model, [SelectingLayer(encoder).train(model.training)])

    def keep_hidden(self, model: nn.Module, channels: Sequence[int], units: Sequence[int]) -> None:
        """See ``ModelAdapter.keep_hidden``; the head has no units but hidden channels."""
        kept, backbone, before = torch.tensor(channels), self._backbone(model), self._projection(model)
        embeddings = self._embeddings(model)
        embeddings.set_submodule(PROJECTION, _select_outputs(before, kept))
        for name in (*self.learned, "position_embeddings", *filter(None, (self.registers, self._mask(embeddings)))):
            rows = embeddings.get_parameter(name)
            setattr(embeddings, name, nn.Parameter(rows.detach()[..., kept].clone(), rows.requires_grad))
        for layer in self.layers(model):
            select_hidden(layer, kept)
            for scale in self.scales:
                factor = layer.get(scale).get_parameter("lambda1")
                layer.get(scale).lambda1 = nn.Parameter(factor.detach()[kept].clone(), factor.requires_grad)
        backbone.set_submodule("layernorm", select_norm(backbone.get_submodule("layernorm"), kept))
        read = torch.cat([kept, before.out_channels + kept]) if self.head == "first_and_mean" else kept
        model.set_submodule("classifier", select_linear(model.get_submodule("classifier"), inputs=read))
        _config(model).hidden_size = len(channels)

    def hidden_norms(self, model: nn.Module) -> list[nn.Module]:
        """See ``ModelAdapter.hidden_norms``."""
        layers = self.layers(model)
        found = [layer.get(path) for layer in layers for path in (layer.attention_norm, layer.ffn_norm)]
        return [*found, self._backbone(model).get_submodule("layernorm")]

    def sum_norms(self, model: nn.Module) -> list[nn.Module]:
        """See ``ModelAdapter.sum_norms``: each of the norms but the first, which reads the embeddings."""
        return self.hidden_norms(model)[1:]

    def head_linears(self, model: nn.Module) -> tuple[str, ...]:
        """See ``ModelAdapter.head_linears``."""
        return ("classifier",)

    def classifier_linear(self, model: nn.Module) -> nn.Module:
        """See ``ModelAdapter.classifier_linear``."""
        return model.get_submodule("classifier")

    def keep_tokens(self, model: nn.Module, kept: Sequence[int]) -> None:
        """Refuse: see ``ModelAdapter``."""
        refuse_of_images("a smaller vocabulary")

    def keep_positions(self, model: nn.Module, count: int) -> None:
        """Refuse: see ``ModelAdapter``."""
        refuse_of_images("fewer positions")

    def token_embedding(self, model: nn.Module) -> nn.Module:
        """Refuse: see ``ModelAdapter``."""
        refuse_of_images("a smaller token table")

    def replace_token_embedding(self, model: nn.Module, module: nn.Module) -> None:
        """Refuse: see ``ModelAdapter``."""
        refuse_of_images("a smaller token table")

    def _backbone(self, model: nn.Module) -> nn.Module:
        return model.get_submodule(str(model.base_model_prefix))

    def _embeddings(self, model: nn.Module) -> nn.Module:
        return self._backbone(model).get_submodule("embeddings")

    def _projection(self, model: nn.Module) -> nn.Conv2d:
        projection = self._embeddings(model).get_submodule(PROJECTION)
        assert isinstance(projection, nn.Conv2d)
        if projection.kernel_size[0] != projection.kernel_size[1] or projection.kernel_size != projection.stride:
            raise unsupported("patches that overlap or are no squares", "square patches side by side")
        return projection

    def _mask(self, embeddings: nn.Module) -> str:
        return "" if getattr(embeddings, "mask_token", None) is None else "mask_token"

    def _encoder(self, model: nn.Module) -> nn.ModuleList:
        selecting = self._selecting(model)
        return self._modules(model) if selecting is None else selecting.layer

    def _modules(self, model: nn.Module) -> nn.ModuleList:
        modules = self._backbone(model).get_submodule(self.encoder)
        assert isinstance(modules, nn.ModuleList)
        return modules

    def _put(self, model: nn.Module, layers: Sequence[nn.Module]) -> None:
        self._backbone(model).set_submodule(self.encoder, nn.ModuleList(layers))

    def _selecting(self, model: nn.Module) -> SelectingEncoder | None:
        first = next(iter(self._modules(model)), None)
        return first.encoder if isinstance(first, SelectingLayer) else None

    def _most_tokens(self, model: nn.Module) -> Sequence[int]:
        selecting = self._selecting(model)
        return (0,) * len(self._modules(model)) if selecting is None else selecting.most_tokens

    def _tokens(self, model: nn.Module) -> Tensor:
        """Return the rows that come first, with their positions added in, and the positions of the patches."""
        embeddings = self._embeddings(model)
        rows = tensor(embeddings, "position_embeddings")[0]
        learned = torch.cat([tensor(embeddings, name)[0] for name in self.learned])
        registers = [tensor(embeddings, self.registers)[0]] if self.registers else []
        return torch.cat([learned + rows[: len(learned)], *registers, rows[len(learned) :]])


VIT = VitAdapter("vit")
DEIT = VitAdapter("deit", learned=("cls_token", "distillation_token"))
DINOV2 = VitAdapter(
    "dinov2",
    head="first_and_mean",
    encoder="encoder.layer",
    attention_norm="norm1",
    ffn_norm="norm2",
    scales=("layer_scale1", "layer_scale2"),
)
DINOV2_WITH_REGISTERS = replace(DINOV2, name="dinov2_with_registers", registers="register_tokens")


def _config(model: nn.Module) -> Any:
    return model.config


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    """Return height and width."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _select_outputs(convolution: nn.Conv2d, kept: Tensor) -> nn.Conv2d:
    size, stride = convolution.kernel_size[0], convolution.stride[0]
    smaller = nn.Conv2d(convolution.in_channels, len(kept), size, stride)
    smaller.weight = nn.Parameter(convolution.weight.detach()[kept].clone())
    assert convolution.bias is not None
    smaller.bias = nn.Parameter(convolution.bias.detach()[kept].clone())
    return smaller.train(convolution.training)
