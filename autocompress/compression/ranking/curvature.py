"""How the logits bend with the outputs of each output linear: Kronecker factors of the Gauss-Newton matrix.

For a change E of a weight, a token's output moves by E x, and the logits by J E x, J the logits' derivative with
respect to that output. Summed over tokens, |J E x|^2 is about tr(G E H E^T): H = sum of |J|^2 x x^T / documents,
G = sum of J^T J / sum of |J|^2 (K-FAC, Martens & Grosse 2015, with the size of J kept on the side of the inputs:
tokens that the logits do not hear, such as all but the first of a last layer, drop out of H).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autocompress.compression.captures import output_linears
from autocompress.training.batches import LabelledBatch
from autocompress.training.loop import logits_of

PROBES_SEED = 0


@dataclass(frozen=True)
class Curvature:
    """Factors of one linear, float64: ``inputs`` H (inputs x inputs), ``outputs`` G (outputs x outputs) of trace 1."""

    inputs: Tensor
    outputs: Tensor


def curvatures(model: nn.Module, batches: Iterable[LabelledBatch]) -> list[Curvature]:
    """Return the factors for each of ``output_linears``.

    J^T J is estimated without bias by J^T v v^T J with random signs v, one draw a document; a constant that all
    logits share moves no decision and is taken out of v.
    """
    linears = [linear.module for linear in output_linears(model)]
    inputs = [torch.zeros(linear.in_features, linear.in_features).double() for linear in linears]
    outputs = [torch.zeros(linear.out_features, linear.out_features).double() for linear in linears]
    generator = torch.Generator().manual_seed(PROBES_SEED)
    documents = 0
    for batch in batches:
        seen: dict[int, Tensor] = {}
        given: dict[int, Tensor] = {}

        def keep(index: int, seen: dict[int, Tensor] = seen, given: dict[int, Tensor] = given) -> Callable[..., None]:
            def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
                seen[index], given[index] = args[0].detach(), output.requires_grad_()

            return hook

        handles = [linear.register_forward_hook(keep(index)) for index, linear in enumerate(linears)]
        try:
            with torch.enable_grad():
                logits = logits_of(model, batch.inputs)
                signs = torch.randint(0, 2, logits.shape, generator=generator) * 2.0 - 1.0
                probe = signs - signs.mean(1, keepdim=True)
                slopes_of = torch.autograd.grad((logits * probe).sum(), [given[index] for index in sorted(given)])
        finally:
            for handle in handles:
                handle.remove()
        documents += len(logits)
        real = batch.attention_mask.bool()
        for index, gradient in enumerate(slopes_of):
            slopes, values = gradient[real], seen[index][real]
            weighted = values * slopes.norm(dim=1, keepdim=True)
            inputs[index].add_(weighted.T @ weighted)
            # With few classes G is of low rank: errors of f32 would make eigenvalues of it negative.
            outputs[index].add_(slopes.double().T @ slopes.double())
    return [Curvature(h / documents, g / g.trace()) for h, g in zip(inputs, outputs, strict=True)]
