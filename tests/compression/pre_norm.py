"""A small pre-norm vision transformer, and pictures."""

import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

HIDDEN, LAYERS = 16, 2


def tiny_vit(seed: int = 0) -> nn.Module:
    """Return one whose norms scale channels by 0.01 to 100 and shift them; linears that read them scale them back."""
    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
        num_channels=1,
        num_labels=3,
        initializer_range=0.2,
    )
    model = ViTForImageClassification(config).eval()
    with torch.no_grad():
        for layer in model.vit.layers:
            heads = layer.attention
            _scale(layer.layernorm_before, heads.q_proj, heads.k_proj, heads.v_proj)
            _scale(layer.layernorm_after, layer.mlp.fc1)
    return model


def _scale(norm: nn.LayerNorm, *readers: nn.Linear) -> None:
    norm.weight.copy_(10.0 ** (4 * torch.rand(HIDDEN) - 2))
    norm.bias.copy_(norm.weight * torch.randn(HIDDEN))
    for linear in readers:
        linear.weight.div_(norm.weight)


def pictures(count: int = 64, seed: int = 1) -> dict[str, torch.Tensor]:
    """Return random ones as keyword arguments."""
    return {"pixel_values": torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))}


@torch.no_grad()
def norm_output(model: nn.Module, norm: nn.Module) -> torch.Tensor:
    """Return what a norm of the model gives for ``pictures``, (tokens x hidden)."""
    found: list[torch.Tensor] = []
    handle = norm.register_forward_hook(lambda _module, _inputs, output: found.append(output.flatten(0, -2)))
    model(**pictures())
    handle.remove()
    return found[0]
