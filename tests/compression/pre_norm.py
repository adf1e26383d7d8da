"""A small pre-norm vision transformer, and pictures."""

import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

HIDDEN, LAYERS = 16, 2


def tiny_vit(seed: int = 0) -> nn.Module:
    """Return one whose norms scale channels by 0.01 to 100 and shift them, as those of trained models do."""
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
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.copy_(10.0 ** (4 * torch.rand(HIDDEN) - 2))
                module.bias.copy_(module.weight * torch.randn(HIDDEN))
    return model


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
