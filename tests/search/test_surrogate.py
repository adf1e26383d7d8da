import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from autocompress.search.surrogate import LEVEL, OWN_SLOPE, SLOPE, USUAL, Posterior, coordinates, posterior

NATS = {"depth": {6: 0.0, 4: 0.25, 2: 1.0}, "bits": {32: 0.0, 8: -0.001, 4: 0.04}}


def test_a_coordinate_is_the_root_of_what_a_choice_costs():
    asked = [{"depth": 4, "bits": 4}, {"depth": 2, "bits": 8, "repair": "none"}, {"depth": 6}]
    assert coordinates(NATS, asked).tolist() == [[0.5, 0.2], [1.0, 0.0], [0.0, 0.0]]
    assert coordinates(NATS, []).shape == (0, 2)


def test_before_any_score_the_candidate_of_least_nats_is_thought_best():
    asked = coordinates(NATS, [{"depth": 2, "bits": 32}, {"depth": 4, "bits": 4}, {"depth": 4, "bits": 32}])
    found = posterior(np.zeros((0, 2)), np.zeros(0), np.zeros(0), asked)
    assert np.argsort(-found.mean).tolist() == [2, 1, 0]
    assert len(set(found.deviation.tolist())) == 1


def test_two_scores_give_the_textbook_posterior():
    """Equations 2.23 and 2.24 of Rasmussen and Williams, by inverting matrices; hyperparameters are the usual ones."""
    known, asked = np.array([[0.0, 0.2], [1.0, 0.0]]), np.array([[0.5, 0.1], [0.0, 0.2]])
    scores, noise = np.array([0.9, 0.7]), np.array([0.01, 0.02])
    span, unit = np.sqrt(1.0 + 0.04), scores.std()
    length, signal = np.exp(USUAL)

    def kernel(rows, columns):
        a, b = (rows / span) ** 2, (columns / span) ** 2
        line = LEVEL**2 + SLOPE**2 * np.outer(a.sum(1), b.sum(1)) + OWN_SLOPE**2 * a @ b.T
        squares = ((rows[:, None] - columns[None]) ** 2).sum(-1) / span**2
        return line + signal**2 * np.exp(-squares / (2 * length**2))

    def falls(rows):
        return -SLOPE * ((rows / span) ** 2).sum(1)

    inverse = np.linalg.inv(kernel(known, known) + np.diag((noise / unit) ** 2))
    goal = (scores - scores.mean()) / unit - falls(known)
    mean = falls(asked) + kernel(asked, known) @ inverse @ goal
    variance = np.diag(kernel(asked, asked) - kernel(asked, known) @ inverse @ kernel(known, asked))
    found = posterior(known, scores, noise, asked)
    assert found.mean == pytest.approx(scores.mean() + unit * mean, rel=1e-6)
    assert found.deviation == pytest.approx(unit * np.sqrt(variance), rel=1e-6)


def test_what_was_scored_without_noise_is_known_and_what_is_far_is_not():
    rng = np.random.default_rng(0)
    known = rng.random((30, 3))
    scores = 0.9 - 0.1 * (known**2).sum(1) + 0.02 * np.sin(4 * known[:, 0])
    found = posterior(known, scores, np.zeros(30), np.concatenate([known, [[3.0, 3.0, 3.0]]]))
    assert found.mean[:-1] == pytest.approx(scores, abs=0.005)
    assert found.deviation[-1] > 5 * found.deviation[:-1].max()


def test_a_parameter_that_turns_out_harmless_is_found_to_be():
    """What bits cost alone and what training makes up for are nats alike until scores tell them apart."""
    rng = np.random.default_rng(1)
    known = rng.random((25, 2))
    scores = 0.9 - 0.2 * known[:, 1] ** 2 + rng.normal(scale=0.002, size=25)
    found = posterior(known, scores, np.full(25, 0.002), np.array([[1.0, 0.1], [0.1, 1.0]]))
    assert found.mean[0] - found.mean[1] == pytest.approx(0.2 * 0.99, abs=0.02)


def test_improvement_is_the_mean_of_what_is_gained():
    found = Posterior(np.array([0.8, 0.95]), np.array([0.1, 0.02]))
    for got, mean, deviation in zip(found.expected_improvement(0.9), found.mean, found.deviation, strict=True):
        gained, _ = quad(lambda y, at=mean, sd=deviation: (y - 0.9) * norm.pdf(y, at, sd), 0.9, 2.0, points=[mean])
        assert got == pytest.approx(gained, rel=1e-6)


def test_equal_scores_and_equal_places_are_no_trouble():
    places = np.ones((5, 2))
    found = posterior(places, np.full(5, 0.9), np.zeros(5), places)
    assert found.mean == pytest.approx(np.full(5, 0.9)) and np.isfinite(found.deviation).all()
