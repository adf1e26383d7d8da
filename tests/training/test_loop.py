from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from autocompress.errors import ConfigError
from autocompress.training.batches import TokenBatch
from autocompress.training.loop import TrainingDivergedError, cross_entropy, head_rate, logits_of, rate, repeat, train
from tests.conftest import tiny_model


@dataclass(frozen=True)
class Batch(TokenBatch):
    labels: Tensor


def learnable_batches(count: int, seed: int = 0) -> list[Batch]:
    """The label is the first token modulo 3."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 60, (count, 16, 6), generator=generator)
    return [Batch(rows, torch.ones_like(rows), rows[:, 0] % 3) for rows in ids]


class Line(nn.Module):
    """y = w x + b, with dropout, to reckon with by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.layer(x))


def mean_output(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).mean()


class TestTraining:
    def test_makes_a_model_learn(self) -> None:
        model = tiny_model("bert")
        batches = learnable_batches(80)
        log = train(model, batches, cross_entropy, learning_rate=3e-3, steps=80)
        assert len(log.losses) == 80
        assert sum(log.losses[-10:]) < 0.5 * sum(log.losses[:10])

    def test_the_same_seed_gives_the_same_weights_and_another_one_others(self) -> None:
        def fitted(seed: int) -> Tensor:
            model = tiny_model("bert")
            train(model, learnable_batches(3), cross_entropy, learning_rate=1e-3, steps=3, seed=seed)
            return nn.utils.parameters_to_vector(model.parameters())

        assert torch.equal(fitted(1), fitted(1))
        assert not torch.equal(fitted(1), fitted(2))

    def test_puts_back_each_modules_mode_and_the_random_state(self) -> None:
        model = tiny_model("bert")
        model.classifier.train()
        modes, state = [module.training for module in model.modules()], torch.get_rng_state()
        train(model, learnable_batches(1), cross_entropy, learning_rate=1e-3, steps=1)
        assert [module.training for module in model.modules()] == modes
        assert torch.equal(torch.get_rng_state(), state)
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_trains_with_dropout(self) -> None:
        model, seen = Line().eval(), []

        def loss(module: nn.Module, x: Tensor) -> Tensor:
            seen.append(module.training and module.dropout.training)
            return mean_output(module, x)

        train(model, [torch.ones(4, 1)], loss, learning_rate=1e-3, steps=1)
        assert seen == [True] and not model.training

    def test_reports_each_step(self) -> None:
        told: list[tuple[int, int, float]] = []
        log = train(
            Line(), [torch.ones(4, 1)] * 3, mean_output, learning_rate=1e-3, steps=3,
            on_step=lambda step, steps, loss: told.append((step, steps, loss)),
        )  # fmt: skip
        assert told == [(step, 3, log.losses[step - 1]) for step in (1, 2, 3)]

    def test_leaves_frozen_parameters_alone(self) -> None:
        model = Line()
        model.layer.weight.requires_grad_(False)
        before = model.layer.weight.clone()
        train(model, [torch.ones(8, 1)] * 5, mean_output, learning_rate=0.1, steps=5)
        assert torch.equal(model.layer.weight, before)

    def test_the_first_step_moves_by_the_rate_and_decays_matrices_only(self) -> None:
        """AdamW's first step is rate * sign(gradient), after w <- w (1 - rate * decay)."""
        model = Line()
        model.dropout.p = 0.0
        w, b = model.layer.weight.item(), model.layer.bias.item()
        train(model, [torch.ones(4, 1)], mean_output, learning_rate=0.01, steps=1, weight_decay=0.5, warmup_ratio=0.0)
        assert model.layer.weight.item() == pytest.approx(w * (1 - 0.01 * 0.5) - 0.01, abs=1e-6)
        assert model.layer.bias.item() == pytest.approx(b - 0.01, abs=1e-6)

    @pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "electra"])
    def test_the_head_of_every_family_can_move_faster(self, family: str) -> None:
        """In the first step every parameter with a gradient moves by its rate, so the distances tell the rates."""
        model = tiny_model(family)
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        settings = {"weight_decay": 0.0, "warmup_ratio": 0.0, "clip": 1e9, "rate_of": head_rate(20.0)}
        train(model, learnable_batches(1), cross_entropy, learning_rate=1e-4, steps=1, **settings)
        moved = {name: (parameter - before[name]).abs().max().item() for name, parameter in model.named_parameters()}
        head = {name for name in moved if not name.startswith(f"{model.base_model_prefix}.") or ".pooler." in name}
        assert len(head) >= 4
        assert [moved[name] for name in head] == pytest.approx([20e-4] * len(head), rel=0.01)
        assert max(moved[name] for name in moved if name not in head) == pytest.approx(1e-4, rel=0.01)

    def test_clips_the_gradient(self) -> None:
        """Adam does not mind the gradient's size, so the clipping shows in the gradients that the step sees."""
        model = Line()
        model.dropout.p = 0.0
        norms: list[float] = []
        hook = register_optimizer_step_pre_hook(
            lambda *_: norms.append(float(nn.utils.get_total_norm([p.grad for p in model.parameters()])))
        )
        try:
            train(model, [torch.full((4, 1), 100.0)], mean_output, learning_rate=1e-3, steps=1, clip=0.25)
        finally:
            hook.remove()
        assert norms == [pytest.approx(0.25, rel=1e-4)]


class TestFailures:
    @pytest.mark.parametrize("where", ["loss", "gradient"])
    def test_what_is_not_finite_stops_training_with_the_weights_before_it(self, where: str) -> None:
        model = Line().eval()
        before = model.layer.weight.clone()
        losses: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
            "loss": lambda module, x: module(x).mean() * torch.inf,
            "gradient": lambda module, x: module.layer.weight.sub(before).abs().sqrt().sum(),
        }
        with pytest.raises(TrainingDivergedError, match=r"step 1.*Lower the learning rate \(it is 0\.001\)"):
            train(model, [torch.ones(4, 1)], losses[where], learning_rate=1e-3, steps=1)
        assert torch.equal(model.layer.weight, before)
        assert not model.training

    def test_fewer_batches_than_steps_are_an_error(self) -> None:
        with pytest.raises(ConfigError, match="5 steps, but there were 2 batches"):
            train(Line(), [torch.ones(4, 1)] * 2, mean_output, learning_rate=1e-3, steps=5)


class TestRate:
    def test_rises_to_one_and_falls_in_straight_lines(self) -> None:
        rates = [rate(step, 20, 0.2) for step in range(20)]
        assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
        assert rates[4:] == pytest.approx([(20 - step) / 16 for step in range(4, 20)])

    def test_starts_at_the_peak_without_warm_up(self) -> None:
        assert rate(0, 10, 0.0) == 1.0


def test_batches_repeat_epoch_after_epoch_until_there_are_enough() -> None:
    asked: list[int] = []

    def epoch(number: int) -> list[str]:
        asked.append(number)
        return [f"{number}.{index}" for index in range(3)]

    assert list(repeat(epoch, steps=7)) == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2", "2.0"]
    assert asked == [0, 1, 2]


def test_cross_entropy_is_the_mean_negative_log_probability_of_the_labels() -> None:
    model, (batch,) = tiny_model("bert"), learnable_batches(1)
    with torch.no_grad():
        logits = logits_of(model, batch.inputs).double()
        loss = cross_entropy(model, batch)
    expected = -torch.stack([row.log_softmax(0)[label] for row, label in zip(logits, batch.labels, strict=True)]).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
