"""A small vision transformer, trained here, and the images it is trained on: for ``benchmarks.vit_quantization``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ViTConfig, ViTForImageClassification

from autocompress.devices.load import load_profile
from autocompress.evaluation.images import read_idx

IMAGES = Path("/usr/share/datasets/fashion-mnist")
"""Where ``apt install dataset-fashion-mnist`` puts its files (Xiao et al. 2017, MIT licence)."""
MEAN, DEVIATION = 0.286, 0.353
"""Of the training pixels, 0 to 1."""
WARM_UP = 0.1
"""Share of the steps in which the rate rises."""


@dataclass(frozen=True)
class Size:
    """A vision transformer of 28 x 28 grey images, and how long it is trained.

    Attributes:
        hidden, depth, heads, patch: Widths; the feed-forward is four times as wide as ``hidden``.
        steps: Of training, ``batch`` images each.
        rate: The highest, of AdamW with a cosine.
    """

    hidden: int = 96
    depth: int = 6
    heads: int = 4
    patch: int = 4
    steps: int = 3200
    batch: int = 64
    rate: float = 1.5e-3

    @property
    def name(self) -> str:
        """Width, layers, tokens and training, for files and tables."""
        tokens = (28 // self.patch) ** 2 + 1
        return f"{self.hidden} wide, {self.depth} layers, {tokens} tokens, {self.steps * self.batch:,} images"


LARGE, SMALL = Size(), Size(hidden=64, depth=3, patch=7, steps=1200)


@dataclass(frozen=True)
class Pictures:
    """Labelled images: (images x 1 x 28 x 28) floats of mean 0, and classes (images,)."""

    pixels: Tensor
    labels: Tensor

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all in turn."""
        yield from zip(self.pixels.split(size), self.labels.split(size), strict=True)

    def draw(self, count: int, seed: int) -> Tensor:
        """Return the pixels of ``count`` images drawn without replacement."""
        return self.pixels[torch.randperm(len(self.pixels), generator=torch.Generator().manual_seed(seed))[:count]]


def read_pictures(folder: Path, part: str) -> Pictures:
    """Read ``PART-images-idx3-ubyte.gz`` and its labels (the format of MNIST) of ``folder``."""
    levels, labels = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    pixels = (torch.from_numpy(levels[:, None].copy()).float() / 255.0 - MEAN) / DEVIATION
    return Pictures(pixels, torch.from_numpy(labels.astype(np.int64)))


def trained(size: Size, seed: int, folder: Path, cache: Path | None) -> nn.Module:
    """Return a trained model in eval mode, from ``cache`` where it is there already."""
    kept = (
        cache / f"vit-{size.hidden}x{size.depth}-p{size.patch}-{size.steps}x{size.batch}-seed{seed}" if cache else None
    )
    if kept and kept.exists():
        return ViTForImageClassification.from_pretrained(kept, attn_implementation="eager").eval()
    model = train(size, seed, read_pictures(folder, "train"))
    if kept:
        model.save_pretrained(kept)
    return model


def train(size: Size, seed: int, pictures: Pictures) -> nn.Module:
    """Train a fresh model; images are mirrored half of the time and moved by up to two pixels."""
    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=size.hidden,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.hidden,
        image_size=28,
        patch_size=size.patch,
        num_channels=1,
        num_labels=10,
        attn_implementation="eager",
    )
    model = ViTForImageClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=size.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, size.rate, size.steps, pct_start=WARM_UP)
    # Half precision where the processor multiplies it natively: elsewhere it only costs.
    native = any("bf16" in name for name in load_profile("host").isa)
    for step in range(size.steps):
        rows = torch.randint(len(pictures.pixels), (size.batch,))
        with torch.autocast("cpu", torch.bfloat16, enabled=native):
            logits = model(pixel_values=_moved(pictures.pixels[rows])).logits
        loss = functional.cross_entropy(logits.float(), pictures.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 199:
            print(f"seed {seed}, step {step + 1} of {size.steps}: loss {loss.item():.3f}", flush=True)
    return model.eval()


def _moved(pixels: Tensor) -> Tensor:
    mirrored = torch.where(torch.rand(len(pixels), 1, 1, 1) < 0.5, pixels.flip(-1), pixels)
    down, right = torch.randint(5, (2,)).tolist()
    padded = functional.pad(mirrored, (2, 2, 2, 2), value=-MEAN / DEVIATION)
    return padded[..., down : down + 28, right : right + 28]
