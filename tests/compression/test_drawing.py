from dataclasses import replace
from random import Random

import pytest

from autocompress.compression import drawing
from autocompress.compression.drawing import Drawing
from autocompress.compression.method import LayerImportance, Space
from autocompress.compression.methods import METHODS, draw, reshape_plan
from autocompress.pipeline.candidates import choices
from autocompress.plan import Chosen
from autocompress.shape import LayerShape, ModelShape

SHAPE = ModelShape("bert", 100, 32, 64, 64, (LayerShape(4, 16, 256),) * 3, 2)
SHARED = Space(
    (1, 2, 3),
    hidden_keep=(0.5, 1.0),
    depth_selection=("uniform", "dynabert"),
    allocation=("uniform", "global"),
    tokens_keep=(0.5, "all"),
    rounding=("nearest", "optq"),
    importance={"fisher": tuple(LayerImportance((3.0, 2.0, 1.0, at), (1.0 + at,) * 256) for at in range(3))},
)
OWN = replace(SHARED, own_layers=(0, 1, 2))


def some(space: Space, count: int) -> list[dict[str, object]]:
    random = Random(0)
    return [{name: random.choice(values) for name, values in choices(space).items()} for _ in range(count)]


@pytest.mark.parametrize("space", [SHARED, OWN], ids=["shared", "own"])
def test_what_is_drawn_is_what_the_methods_say_in_whatever_order_it_is_asked(space):
    drawn = Drawing(SHAPE, space)
    for params in [*some(space, 60), *some(space, 60)[::-1]]:
        plan = draw(Chosen(params), SHAPE, space)
        found = drawn(params)
        assert found.plan == plan and found.shape == reshape_plan(SHAPE, plan)


def test_no_method_is_asked_twice_for_what_plans_have_in_common(monkeypatch):
    asked = []

    class Counted:
        def __init__(self, name):
            self._method, self._name = METHODS[name], name

        def suggest(self, *arguments):
            asked.append(self._name)
            return self._method.suggest(*arguments)

        def reshape(self, *arguments):
            return self._method.reshape(*arguments)

    monkeypatch.setattr(drawing, "METHODS", {name: Counted(name) for name in METHODS})
    drawn, (first, *_) = Drawing(SHAPE, SHARED), some(SHARED, 1)
    drawn(first)
    assert asked == list(METHODS)
    drawn(first)
    assert asked == list(METHODS)
    # Of other bits only rounding, and what comes after it, is new.
    bits = next(value for value in SHARED.ffn_bits if value != first["ffn_bits"])
    drawn({**first, "ffn_bits": bits})
    assert asked == [*METHODS, *list(METHODS)[list(METHODS).index("quantize") :]]


def test_memory_stays_flat(monkeypatch):
    monkeypatch.setattr(drawing, "MOST", 50)
    drawn, sizes = Drawing(SHAPE, SHARED), []
    for params in some(SHARED, 80):
        assert drawn(params).plan == draw(Chosen(params), SHAPE, SHARED)
        sizes.append(drawn._answers)
    assert max(sizes) <= 50 + len(METHODS)


def test_a_choice_that_is_not_offered_is_refused():
    (params,) = some(SHARED, 1)
    with pytest.raises(ValueError, match="not in tuple"):
        Drawing(SHAPE, SHARED)({**params, "depth": 7})
