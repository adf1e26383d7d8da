import pytest
import torch

from autocompress.compression.rounding.rotary import RotaryAttention, rotary_objectives

WIDTH, HEADS, KEY_HEADS, CHANNELS, TOKENS = 4, 6, 2, 10, 7
MEMBERS = HEADS // KEY_HEADS
ANGLES = torch.tensor([1.0, 0.3], dtype=torch.float64)


def rotation(position):
    """R_t as a matrix: channels c and c + 2 turn in their plane by the angle of c, times the position."""
    cosine, sine = torch.diag((position * ANGLES).cos()), torch.diag((position * ANGLES).sin())
    return torch.cat([torch.cat([cosine, -sine], 1), torch.cat([sine, cosine], 1)])


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (HEADS * WIDTH, CHANNELS), (KEY_HEADS * WIDTH, CHANNELS)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def documents(count, *, up_to_sign=False, seed=1):
    """Return x; ``up_to_sign`` gives each token the same values or their negatives, so that all x x^T are equal."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, TOKENS, CHANNELS, generator=generator, dtype=torch.float64)
    return x[:1, :1] * x[..., :1].sign() if up_to_sign else x


def reads(x, query, key, *, first=0):
    """Return what attention reads where the first token stands at position ``first``."""
    turns = torch.arange(first, first + TOKENS)[:, None] * ANGLES.repeat(2)
    queries, keys = (
        (x @ w.T).unflatten(-1, (KEY_HEADS, members, WIDTH)).permute(0, 2, 3, 1, 4)
        for w, members in ((query, MEMBERS), (key, 1))
    )
    return RotaryAttention(x, queries, keys, turns.cos(), turns.sin())


def scores(document, query, key, head):
    """(R_t q_t) . (R_s k_s), (tokens x tokens), by rotation matrices."""
    q, k = query[head * WIDTH :][:WIDTH], key[head // MEMBERS * WIDTH :][:WIDTH]
    turned = [[rotation(t) @ w @ x for t, x in enumerate(document)] for w in (q, k)]
    return torch.stack(turned[0]) @ torch.stack(turned[1]).T


@pytest.mark.parametrize("side", ["query", "key"])
def test_query_and_key_losses_are_how_scores_of_visible_pairs_change(side):
    """Exact where x x^T is the same of all tokens: nothing is left of which independence must be assumed."""
    (query, key), x = weights(), documents(3, up_to_sign=True)
    changed = {"query": query, "key": key}
    change = torch.randn_like(changed[side])
    after = {**changed, side: changed[side] + change}
    moved = [
        (scores(document, after["query"], after["key"], head) - scores(document, query, key, head)).tril()
        for document in x
        for head in range(HEADS)
    ]
    pairs = len(x) * TOKENS * (TOKENS + 1) / 2 * (1 if side == "query" else MEMBERS)
    expected = 2.0 * torch.stack(moved).square().sum() / pairs
    objective = getattr(rotary_objectives(reads(x, query, key)), side)
    torch.testing.assert_close(objective.loss(change), expected)


def test_the_value_loss_is_what_the_output_of_attention_changes_by():
    (query, key), x = weights(), documents(3)
    change = torch.randn(KEY_HEADS * WIDTH, CHANNELS, dtype=torch.float64)
    moved = 0.0
    for document in x:
        for head in range(HEADS):
            hidden = torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1)
            shares = (scores(document, query, key, head) / WIDTH**0.5).masked_fill(hidden, -torch.inf).softmax(1)
            moved += (shares @ document @ change[head // MEMBERS * WIDTH :][:WIDTH].T).square().sum()
    objective = rotary_objectives(reads(x, query, key)).value
    torch.testing.assert_close(objective.loss(change), 2.0 * moved / (len(x) * TOKENS * MEMBERS))


def test_moments_are_those_of_visible_pairs_turned_to_the_token_whose_weights_change():
    (query, key), x = weights(), documents(2)
    pairs = [(t, s) for t in range(TOKENS) for s in range(t + 1)]
    found = reads(x, query, key)
    for group in range(KEY_HEADS):
        k = key[group * WIDTH :][:WIDTH]
        turned = torch.stack([rotation(s - t) @ k @ document[s] for document in x for t, s in pairs])
        torch.testing.assert_close(found.keys_seen()[group], turned.T @ turned / len(turned))
        turned = torch.stack(
            [
                rotation(t - s) @ query[(group * MEMBERS + member) * WIDTH :][:WIDTH] @ document[t]
                for document in x
                for member in range(MEMBERS)
                for t, s in pairs
            ]
        )
        torch.testing.assert_close(found.queries_seeing()[group], turned.T @ turned / len(turned))


def test_only_distances_matter_and_not_where_a_document_begins():
    (query, key), x = weights(), documents(2)
    near, far = (vars(rotary_objectives(reads(x, query, key, first=first))) for first in (0, 50))
    for one, other in zip(near.values(), far.values(), strict=True):
        torch.testing.assert_close(one.inputs, other.inputs)
        if one.outputs is not None:
            torch.testing.assert_close(one.outputs, other.outputs)


def test_no_token_reads_what_comes_after_it():
    """So the first tokens of a document give what they give alone."""
    (query, key), x = weights(), documents(2)
    later = x.clone()
    later[:, 4:] = documents(2, seed=5)[:, 4:]
    one, other = (reads(each, query, key).probabilities() for each in (x, later))
    torch.testing.assert_close(one[..., :4, :], other[..., :4, :])
    assert not one.triu(1).any()
    torch.testing.assert_close(one.sum(-1), torch.ones_like(one[..., 0]))
