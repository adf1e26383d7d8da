"""Rescale what a norm or a linear returns; linears that read it make up for it: the model computes what it did.

In pre-norm layers the linears are all that reads a norm's output. In post-norm layers, as BERT's, the residual stream
reads it too, and nothing can make up for that: such a norm is refused.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autocompress.compression.activations.affine import Affine
from autocompress.compression.activations.norm_sites import NormSite
from autocompress.errors import UnsupportedError


@torch.no_grad()
def fold(site: NormSite, ratio: Tensor, shift: Tensor | None = None) -> None:
    """Make the norm of ``site`` return X / ratio + shift in the place of X, in place.

    weight <- weight / ratio and bias <- bias / ratio + shift; of each reader W <- W * ratio (columns) and
    bias <- bias - W shift, W being the new one.

    Args:
        site: Of a model that may be changed.
        ratio: (channels,), none 0.
        shift: (channels,), or ``None`` for 0, for norms without a bias.

    Raises:
        UnsupportedError: Something else than linears reads the norm, or a shift has no bias to go to.
    """
    _check(site, shifted=shift is not None)
    weight, bias = site.norm.weight, site.norm.bias if hasattr(site.norm, "bias") else None
    assert isinstance(weight, Tensor)
    weight.div_(ratio)
    if isinstance(bias, Tensor):
        bias.div_(ratio)
    for linear in site.readers:
        linear.weight.mul_(ratio)
    if shift is None:
        return
    assert isinstance(bias, Tensor)
    bias.add_(shift)
    for linear in site.readers:
        change = linear.weight @ shift
        linear.bias = nn.Parameter(-change if linear.bias is None else linear.bias - change)


@torch.no_grad()
def fold_linear(before: nn.Linear, reader: nn.Linear, ratio: Tensor, owners: Tensor | None = None) -> None:
    """Make ``before`` return X / ratio in the place of X, and ``reader`` make up for it, in place.

    Between the two, each channel may be multiplied by what does not depend on it, as by a gate, or summed over tokens,
    as values are by attention. Rows of ``before`` that stand on grids stay on them, their scales divided by ``ratio``.

    Args:
        before: Of a model that may be changed; nothing but ``reader`` reads what comes of it.
        reader: Its weight's columns are multiplied.
        ratio: (outputs of ``before``,), none 0.
        owners: Which output of ``before`` each input of ``reader`` is made of (inputs,), int64; ``None``: the same one.

    Raises:
        UnsupportedError: ``reader`` has not as many inputs as ``owners`` says or ``before`` gives.
    """
    owners = torch.arange(before.out_features) if owners is None else owners
    if reader.in_features != len(owners):
        raise UnsupportedError(
            f"A linear that reads {reader.in_features} channels follows one of {len(owners)}.",
            right="Scales fold into a linear where it is known which of its outputs each input of the next is made of.",
            next_step="Say so by owners, as where query heads share values, or leave these linears as they are.",
        )
    before.weight.div_(ratio[:, None])
    if before.bias is not None:
        before.bias.div_(ratio)
    reader.weight.mul_(ratio[owners])


def reparameterize(site: NormSite, channels: Affine, shared: Affine) -> Affine:
    """Fold each channel's scale and zero point into norm and readers (RepQ-ViT, Li et al. 2023).

    With r = s / s_shared, the norm returns X / r + s_shared * (z - z_shared), so that X' / s_shared + z_shared equals
    X / s + z: one scale and zero point serve all channels. Readers change, so quantize their weights afterwards.

    Args:
        site: As in ``fold``.
        channels: Fitted to the norm's output (``affine.fit_channels``).
        shared: Made of ``channels`` by one of ``mosf.SHARED``.

    Returns:
        ``shared``, now the quantizer of the norm's output. Where its zero point is whole, its codes are those of
        ``channels``, up to ties of rounding.
    """
    fold(site, channels.scale / shared.scale, shared.scale * (channels.zero - shared.zero))
    return shared


def _check(site: NormSite, *, shifted: bool) -> None:
    if site.others:
        raise UnsupportedError(
            f"What {site.name} returns is read by {', '.join(site.others)} as well as by linears.",
            right="Scales fold into a norm that linears alone read, as in pre-norm layers (ViT).",
            next_step="Leave this norm as it is: in a post-norm layer its output is the residual stream.",
        )
    affine = isinstance(getattr(site.norm, "weight", None), Tensor)
    if not affine or (shifted and not isinstance(getattr(site.norm, "bias", None), Tensor)):
        raise UnsupportedError(
            f"{site.name} has no {'bias' if affine else 'weight'} to fold into.",
            right="Scales need a norm with a weight, and zero points one with a bias; an RMSNorm has none.",
            next_step="Fold scales alone (smoothing.smooth), or quantize this norm's output by channel.",
        )
