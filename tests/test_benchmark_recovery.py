"""The benchmark of starts for distillation: equal work for all of them, and errors that pair seeds and documents."""

from statistics import stdev
from types import SimpleNamespace

import pytest

from autocompress.compression.ranking.importance import LayerRanking, Ranking
from autocompress.compression.ranking.mask_search import Keep, encoder_macs
from benchmarks.kept import Kept
from benchmarks.pruning_rows import ALIGN, TOKENS, Pruner, Recipe
from benchmarks.recovery import BASE, CUTS, STARTS, Recovered, gain, report, runs
from tests.conftest import tiny_model


def recovered(start, seed, hits):
    return Recovered("sst2", "40 %", start, seed, (0, 100), ("0000", hits), (1.0, 0.5))


@pytest.fixture
def pruner():
    """Of three layers of 4 heads and 96 neurons, of which the later ones are more important."""

    def ranking(units, layer):
        return Ranking(tuple(range(units)), tuple(10.0**layer * (units - place) for place in range(units)))

    made = Pruner(SimpleNamespace(model=tiny_model("bert")), 1, 1, seed=0)
    made.rankings = lambda criterion: tuple(LayerRanking(ranking(4, layer), ranking(96, layer)) for layer in range(3))
    return made


@pytest.mark.parametrize(("share", "layers"), [(0.6, (0, 1, 2)), (0.4, (0, 2))])
@pytest.mark.parametrize("start", STARTS)
def test_every_start_is_cut_to_the_share_of_the_whole_encoder(pruner, start, share, layers):
    keep = pruner.keep(STARTS[start], share, layers)
    assert len(keep.heads) == len(keep.neurons) == len(layers)
    removed = (0,) * (3 - len(layers))
    left = encoder_macs(pruner.shape, TOKENS, Keep(keep.heads + removed, keep.neurons + removed))
    multiple = encoder_macs(pruner.shape, TOKENS, Keep((0,) * 3, (ALIGN, 0, 0)))
    budget = share * encoder_macs(pruner.shape, TOKENS)
    assert budget - len(layers) * multiple < left <= budget


def test_layers_that_compete_apart_keep_as_many_units_as_equal_shares(pruner):
    layers = (0, 1, 2)
    equal = pruner.keep(Recipe("kron_obs"), 0.6, layers)
    apart = pruner.keep(Recipe("kron_obs", "compete apart"), 0.6, layers)
    assert (sum(apart.heads), sum(apart.neurons)) == (sum(equal.heads), sum(equal.neurons))
    assert apart.heads[0] < equal.heads[0] < apart.heads[2]


def test_a_gain_pairs_seeds_and_its_errors_are_over_seeds_and_over_documents():
    base = [recovered(BASE, 0, "1100"), recovered(BASE, 1, "0100"), recovered(BASE, 2, "1111")]
    better = [recovered("better", 1, "1110"), recovered("better", 0, "1110")]
    # Seed 0 gains document 2, seed 1 documents 0 and 2; seed 2 has no pair.
    by_seed, by_document = [25.0, 50.0], [50.0, 0.0, 100.0, 0.0]
    mean, over_seeds, over_documents = gain(better, base, 1)
    assert mean == 37.5
    assert over_seeds == pytest.approx(stdev(by_seed) / 2**0.5, abs=1e-3)
    assert over_documents == pytest.approx(stdev(by_document) / 4**0.5, abs=1e-3)


def test_the_table_says_how_many_seeds_each_cell_has(capsys):
    found = [recovered(BASE, 0, "1100"), recovered("better", 0, "1110"), recovered(BASE, 1, "1000")]
    rows = report(found)
    assert [(row["start"], row["seeds"], row["after 100"]) for row in rows] == [
        (BASE, 2, (37.5, 12.5)),
        ("better", 1, (75.0, 0.0)),
    ]
    assert rows[1]["gain after 100"][0] == 25.0
    assert rows[1]["gain after 0"][0] == 0.0
    assert "seeds" in capsys.readouterr().out


def test_runs_that_are_recorded_are_not_trained_again_and_none_begins_after_the_deadline():
    done = recovered(BASE, 0, "1100")
    tutored = SimpleNamespace(name="sst2", model=tiny_model("bert"))
    kept = Kept(None, lambda line: Recovered(**line), lambda run: run.key, until_s=0.0)
    kept.add(done)
    assert list(runs(kept, [tutored], cuts=list(CUTS), seeds=[0, 1], steps=100)) == [done]
