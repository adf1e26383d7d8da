"""What ``benchmarks.pruning`` compares: published ways to remove heads and neurons, and ours, at equal work."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import Literal

from torch import nn

from autocompress.compression import depth
from autocompress.compression.depth import DepthStep
from autocompress.compression.ffn import FfnStep
from autocompress.compression.heads import HeadStep
from autocompress.compression.method import Context
from autocompress.compression.methods import apply_plan
from autocompress.compression.order import Rankings
from autocompress.compression.ranking.fisher import mask_gradients
from autocompress.compression.ranking.importance import LayerRanking, reorder
from autocompress.compression.ranking.mask_search import Keep, encoder_macs, mask_search, rearrange, share_out
from autocompress.compression.recipes.teacher import TeacherOutputs
from autocompress.compression.repair import RepairStep
from autocompress.compression.repairs.sublayers import Documents, documents_of
from autocompress.evaluation.text_classification import Batch
from autocompress.models.load import adapter_of
from autocompress.pipeline.teacher import training_batches
from autocompress.plan import CompressionPlan, Criterion, RepairKind
from autocompress.shape import ModelShape
from benchmarks.teachers import Tutored

TOKENS = 32
"""Length at which multiply-accumulates are counted: that of a usual sentence of these tasks."""
BATCH, ALIGN = 32, 32


@dataclass(frozen=True)
class Recipe:
    """One way to prune.

    Attributes:
        criterion: Orders heads and neurons.
        layers: Whether they keep equal shares; compete for one budget of heads and neurons, or for as many heads and as
            many neurons as equal shares leave (``allocation: global`` of a search); or keep all heads and equal shares
            of neurons.
        repair: What is done to the weights that are left.
        rearranged: Whether units are swapped for the number that is kept (Kwon et al. 2022).
    """

    criterion: Criterion
    layers: Literal["equal", "compete", "compete apart", "MLP only"] = "equal"
    repair: RepairKind = "none"
    rearranged: bool = False


RECIPES: Mapping[str, Recipe] = {
    "magnitude": Recipe("magnitude"),
    "L2P, MLP only (Sander)": Recipe("l2p", "MLP only"),
    "activation (Minitron)": Recipe("activation"),
    "Taylor": Recipe("taylor", "compete"),
    "Fisher, mask search (Kwon 1)": Recipe("fisher", "compete"),
    "and rearrangement (Kwon 2)": Recipe("fisher", "compete", rearranged=True),
    "and mask tuning (Kwon 3)": Recipe("fisher", "compete", "mask_tuning", rearranged=True),
    "block Fisher, greedy": Recipe("block_fisher", "compete"),
    "magnitude, least squares": Recipe("magnitude", repair="least_squares"),
    "OBS, least squares (ZipLM)": Recipe("obs", repair="least_squares"),
    "OBS of the logits, least squares": Recipe("kron_obs", "compete", "least_squares"),
}
"""ZipLM also chooses levels by time; here layers keep equal shares. The last is ours."""
OURS = "OBS of the logits, least squares"


@dataclass
class Pruner:
    """Prunes one teacher; orders and calibration documents are made once.

    Attributes:
        tutored: The teacher and its task.
        batches: Training batches that criteria see.
        repair_batches: Training batches that repairs see, labels left out.
        seed: Which ones.
    """

    tutored: Tutored
    batches: int
    repair_batches: int
    seed: int
    shape: ModelShape = field(init=False)

    def __post_init__(self) -> None:
        """Read the shape and make the caches."""
        self.shape = adapter_of(self.tutored.model).shape(self.tutored.model)
        self.rankings = Rankings(self.tutored.model, lambda: self.calibration)
        self._documents = lru_cache(maxsize=1)(self._read)

    @cached_property
    def calibration(self) -> list[Batch]:
        """The batches that criteria see."""
        return list(training_batches(self.tutored.task, self.batches, batch_size=BATCH, seed=self.seed))

    def _read(self, batches: int, seed: int) -> Documents:
        found = training_batches(self.tutored.task, batches, batch_size=BATCH, seed=seed)
        return documents_of(self.tutored.model, found)

    def keep(self, recipe: Recipe, share: float, layers: Sequence[int] | None = None) -> Keep:
        """Return what each layer of ``layers`` (by default all) keeps for a share of the whole encoder's work."""
        whole, layers = encoder_macs(self.shape, TOKENS), range(len(self.shape.layers)) if layers is None else layers
        shape = depth.reshape(self.shape, DepthStep(tuple(layers)))
        if recipe.layers == "compete":
            return mask_search(self._importance(recipe, layers), shape, macs=share * whole, tokens=TOKENS, align=ALIGN)
        of_heads = 1.0 if recipe.layers == "MLP only" else share * whole / encoder_macs(shape, TOKENS)
        heads = tuple(round(of_heads * layer.heads) for layer in shape.layers)
        without = encoder_macs(shape, TOKENS, Keep(heads, (0,) * len(layers)))
        neurons = int((share * whole - without) / (2 * TOKENS * self.shape.hidden * len(layers))) // ALIGN * ALIGN
        equal = Keep(heads, (neurons,) * len(layers))
        if recipe.layers != "compete apart":
            return equal
        found = self._importance(recipe, layers)
        return Keep(
            share_out([layer.heads.importance for layer in found], sum(equal.heads)),
            share_out([layer.neurons.importance for layer in found], sum(equal.neurons), unit=ALIGN),
        )

    def _importance(self, recipe: Recipe, layers: Sequence[int]) -> list[LayerRanking]:
        return [self.rankings(recipe.criterion)[layer] for layer in layers]

    def make(self, recipe: Recipe, keep: Keep, layers: Sequence[int] | None = None) -> nn.Module:
        """Return the pruned and repaired student; ``layers`` are those that stay (by default all)."""
        student = reorder(copy.deepcopy(self.tutored.model), self._rankings(recipe, keep))
        steps = (
            DepthStep(tuple(range(len(self.shape.layers)) if layers is None else layers)),
            HeadStep(keep.heads),
            FfnStep(keep.neurons),
            RepairStep(recipe.repair, self.repair_batches, self.seed),
        )
        return apply_plan(student, CompressionPlan(steps), self.context)

    def _rankings(self, recipe: Recipe, keep: Keep) -> tuple[LayerRanking, ...]:
        found = self.rankings(recipe.criterion)
        if not recipe.rearranged:
            return found
        return rearrange(found, mask_gradients(self.tutored.model, self.calibration, each="batch"), keep)

    @property
    def context(self) -> Context:
        """What repairs may use."""
        batches = partial(training_batches, self.tutored.task, batch_size=BATCH)
        return Context(
            batches=lambda steps, seed: batches(steps, seed=seed),
            teacher=TeacherOutputs(nn.Module()),
            rankings=self.rankings,
            documents=self._documents,
        )
