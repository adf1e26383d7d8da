"""Norms whose output linears read, and whatever else reads it: found by running the model once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

NORMS = (nn.LayerNorm, nn.RMSNorm)
"""Those whose weight is known to multiply what they return; some models' own scale by 1 + weight."""


@dataclass(frozen=True, eq=False)
class NormSite:
    """A norm with the linears that read its output.

    Attributes:
        name: Its path in the model.
        norm: Its ``weight`` and ``bias`` (channels,) scale and shift what it returns.
        readers: The linears, each once.
        others: The operations that read the output as well: in post-norm layers, the addition of the residual. A
            linear that also reads something else is one of them.
    """

    name: str
    norm: nn.Module
    readers: tuple[nn.Linear, ...]
    others: tuple[str, ...]


@dataclass
class _Reads:
    output: Tensor
    linears: list[nn.Linear] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


class _Watch(TorchFunctionMode):
    """Notes which operation reads which watched tensor; asking for its shape and the like is no reading."""

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        super().__init__()
        self._linear_of = {id(linear.weight): linear for linear in linears}
        self._reads: dict[int, _Reads] = {}
        self.calls: Counter[nn.Linear] = Counter()
        self.found: dict[str, list[_Reads]] = {}

    def watch(self, name: str) -> Callable[..., None]:
        """Return a forward hook for the norm ``name``."""

        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            # The tensor is kept, so that no later one gets its id.
            self._reads[id(output)] = reads = _Reads(output)
            self.found.setdefault(name, []).append(reads)

        return hook

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.linear and (called := self._linear_of.get(id(args[1]))):
            self.calls[called] += 1
        name = getattr(func, "__name__", str(func))
        if name not in ("__get__", "dim", "size"):
            for value in (*args, *kwargs.values()):
                for tensor in value if isinstance(value, list | tuple) else (value,):
                    if isinstance(tensor, Tensor) and (reads := self._reads.get(id(tensor))):
                        self._note(reads, func, name, args)
        return func(*args, **kwargs)

    def _note(self, reads: _Reads, func: Any, name: str, args: Sequence[Any]) -> None:
        linear = self._linear_of.get(id(args[1])) if func is functional.linear and args[0] is reads.output else None
        if linear is None:
            reads.others.append(name)
        else:
            reads.linears.append(linear)


@torch.no_grad()
def norm_sites(model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[NormSite, ...]:
    """Return the norms of ``model`` that linears read, in the order in which they run.

    Args:
        model: In eval mode, of any family: what reads a norm is seen, not assumed.
        inputs: Keyword arguments of one forward pass.
    """
    norms = {name: module for name, module in model.named_modules() if isinstance(module, NORMS)}
    watch = _Watch([module for module in model.modules() if isinstance(module, nn.Linear)])
    handles = [norm.register_forward_hook(watch.watch(name)) for name, norm in norms.items()]
    try:
        with watch:
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    found = (_site(name, norms[name], runs, watch.calls) for name, runs in watch.found.items())
    return tuple(site for site in found if site.readers)


def _site(name: str, norm: nn.Module, runs: Sequence[_Reads], calls: Counter[nn.Linear]) -> NormSite:
    reads = Counter(linear for each in runs for linear in each.linears)
    others = [other for each in runs for other in each.others]
    if any(calls[linear] > count for linear, count in reads.items()):
        others.append("a linear that also reads something else")
    return NormSite(name, norm, tuple(reads), tuple(dict.fromkeys(others)))
