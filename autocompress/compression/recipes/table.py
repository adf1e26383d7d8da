"""The recipes by name."""

from __future__ import annotations

from autocompress.compression.recipes.recipe import LossName, Phase, Recipe, Term
from autocompress.plan import RecipeName


def _one(*terms: tuple[LossName, float], temperature: float = 2.0) -> Recipe:
    return Recipe((Phase(tuple(Term(*term) for term in terms)),), temperature)


def _terms(*losses: LossName) -> tuple[Term, ...]:
    return tuple(Term(loss) for loss in losses)


RECIPES: dict[RecipeName, Recipe] = {
    "logits": _one(("logits", 0.7), ("labels", 0.3)),
    "self_distillation": _one(("logits", 1.0), temperature=1.0),
    "cross_entropy": _one(("labels", 1.0)),
    "distilbert": Recipe(
        (
            Phase((Term("logits", 5.0), Term("labels", 2.0), Term("cosine", 1.0)), 0.5, lesson="text"),
            Phase((Term("logits", 0.5), Term("labels", 0.5)), 0.5),
        )
    ),
    "tinybert": Recipe(
        (
            Phase(_terms("embedding", "hidden", "scores"), 0.75, "constant", "varied"),
            Phase(_terms("soft_cross_entropy"), 0.25, lesson="varied"),
        )
    ),
    "minilm": _one(("attention", 1.0), ("values", 1.0), ("logits", 1.0)),
    "minilmv2": _one(("relations", 1.0), ("logits", 1.0)),
    "cofi": _one(("layers", 0.9), ("logits", 0.1)),
    "ei_bert": Recipe(
        (Phase((Term("logits", 0.5), Term("labels", 0.5), Term("first_token", 1.0))),),
        integrates=True,
        teacher_rate=0.04,
    ),
    "steady": Recipe((Phase((Term("logits", 0.7), Term("labels", 0.3))),), dropout=False),
    "steady_hidden": Recipe((Phase((Term("logits", 0.7), Term("labels", 0.3), Term("hidden", 10.0))),), dropout=False),
}
"""Name -> recipe.

- logits: Hinton et al. 2015. self_distillation and cross_entropy: Sander et al. 2025.
- distilbert: the triple loss with the weights of its README, then the distillation of its task script (Sanh et al.
  2019).
- tinybert: one phase after the other, as published (Jiao et al. 2020).
- minilm, minilmv2: relations (Wang et al. 2020 and 2021), published for unlabelled text; here logits are added.
- cofi: weights of its code (Xia et al. 2022).
- ei_bert: a reconstruction (Wang et al. 2025): of its rates only that the teacher's is the smaller one is known.
- steady, steady_hidden: ours. What the teacher gives for a document is always the same; without dropout so is what is
  compared with it, and short trainings have no time for noise (decision 0013).
"""
