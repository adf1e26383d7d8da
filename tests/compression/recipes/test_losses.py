from itertools import combinations_with_replacement
from math import sqrt

import pytest
import torch
from torch import nn

from autocompress.compression.recipes.losses import (
    attention_divergence,
    attention_scores,
    cosine_distance,
    match_layers,
    relation_divergence,
    relation_heads,
    score_error,
    soft_cross_entropy,
    soft_targets,
    token_error,
)

MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])


def features(width=8, tokens=4, seed=1):
    return torch.randn(2, tokens, width, generator=torch.Generator().manual_seed(seed))


def losses_of(student, teacher, mask):
    """Every loss between features of one width."""
    scores = [attention_scores(each, each.flip(-1), 4) for each in (student, teacher)]
    return {
        "token_error": token_error(student, teacher, mask),
        "cosine_distance": cosine_distance(student, teacher, mask),
        "score_error": score_error(*scores, mask),
        "relation_divergence": relation_divergence(student, teacher, mask, 2),
        "attention_divergence": attention_divergence((student, student), (teacher, teacher), mask, 2),
    }


def test_every_loss_is_zero_between_a_model_and_itself_and_not_between_others():
    for name, loss in losses_of(features(), features(), MASK).items():
        assert abs(float(loss)) < 1e-6, name
    for name, loss in losses_of(features(), features(seed=2), MASK).items():
        assert float(loss) > 1e-3, name


def test_no_loss_sees_padding():
    short = losses_of(features(tokens=3), features(tokens=3, seed=2), MASK[:, :3])
    longer = [torch.cat([features(tokens=3, seed=seed), 9 * features(tokens=2, seed=seed + 5)], 1) for seed in (1, 2)]
    long = losses_of(*longer, nn.functional.pad(MASK[:, :3], (0, 2)))
    for name, loss in short.items():
        torch.testing.assert_close(long[name], loss, msg=name)


def test_soft_targets_are_the_formula_and_their_gradient_hardly_depends_on_the_temperature():
    student, teacher = torch.randn(5, 3), torch.randn(5, 3)
    p, q = (each.double() / 3 for each in (teacher, student))
    expected = 9 * (p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum(-1).mean()
    torch.testing.assert_close(soft_targets(student, teacher, 3.0).double(), expected, rtol=1e-5, atol=1e-6)
    sizes = []
    for temperature in (10.0, 20.0):
        inputs = student.clone().requires_grad_()
        soft_targets(inputs, teacher, temperature).backward()
        sizes.append(float(inputs.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_soft_cross_entropy_divides_by_the_classes_and_is_least_at_the_teacher():
    teacher = torch.randn(5, 3, requires_grad=True)
    loss = soft_cross_entropy(teacher, teacher.detach())
    torch.testing.assert_close(loss, torch.distributions.Categorical(logits=teacher).entropy().mean() / 3)
    loss.backward()
    assert float(teacher.grad.abs().max()) < 1e-7


def test_scores_are_those_of_each_head_and_pruned_heads_are_compared_in_the_mean():
    q, k = features(8), features(8, seed=2)
    scores = attention_scores(q, k, 4)
    torch.testing.assert_close(scores[1, 1, 2, 0], q[1, 2, 4:] @ k[1, 0, 4:] / sqrt(4))
    one = attention_scores(q[..., :4], k[..., :4], 4)
    pairs = (MASK[:, :, None] * MASK[:, None, :]).bool()
    expected = (one[:, 0] - scores.mean(1))[pairs].square().mean()
    torch.testing.assert_close(score_error(one, scores, MASK), expected)


def test_relations_compare_widths_that_differ_and_are_the_formula():
    student, teacher = features(6), features(8, seed=2)
    assert relation_heads(6, 8, 12) == 2
    assert relation_heads(256, 384, 48) == 32
    rows = []
    for document, tokens in enumerate(MASK.sum(1).tolist()):
        for head in range(2):
            s = student[document, :tokens, head * 3 :][:, :3]
            t = teacher[document, :tokens, head * 4 :][:, :4]
            p, q = (t @ t.T / sqrt(4)).softmax(-1), (s @ s.T / sqrt(3)).softmax(-1)
            rows += [(p * (p / q).log()).sum(-1)]
    # Heads are cut one after the other, so that each token's mean over heads weighs alike.
    expected = torch.cat(rows).sum() / 2 / MASK.sum()
    torch.testing.assert_close(relation_divergence(student, teacher, MASK, 2), expected, rtol=1e-4, atol=1e-5)


def test_attention_divergence_compares_softmaxed_scores():
    q, k = features(8), features(8, seed=2)
    shares = attention_scores(q[:1, :3], k[:1, :3], 4).softmax(-1)
    even = torch.full_like(shares, 1 / 3).log()
    expected = (shares * (shares.log() - even)).sum(-1).mean()
    blank = torch.zeros(1, 3, 8)
    found = attention_divergence((blank, blank), (q[:1, :3], k[:1, :3]), torch.ones(1, 3), 2)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("seed", range(20))
def test_matched_layers_have_the_least_sum_of_all_orders(seed):
    distances = torch.rand(4, 3, generator=torch.Generator().manual_seed(seed))

    def total(choice):
        return sum(float(distances[row, column]) for row, column in enumerate(choice))

    found = match_layers(distances)
    assert list(found) == sorted(found)
    assert total(found) == pytest.approx(min(map(total, combinations_with_replacement(range(3), 4))))


def test_cosine_distance_reads_directions_alone():
    x, y = features(), features(seed=2)
    assert abs(float(cosine_distance(x, 3 * x, MASK))) < 1e-6
    assert float(cosine_distance(x, -x, MASK)) == pytest.approx(2.0)
    cosines = (x * y).sum(-1) / x.norm(dim=-1) / y.norm(dim=-1)
    torch.testing.assert_close(cosine_distance(x, y, MASK), 1 - cosines[MASK.bool()].mean())
