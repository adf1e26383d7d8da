import torch
from torch import nn

from autocompress.compression.activations.norm_sites import norm_sites
from tests.compression.pre_norm import HIDDEN, LAYERS, pictures, tiny_vit
from tests.conftest import tiny_model


def test_in_a_pre_norm_model_linears_alone_read_the_norms():
    model = tiny_vit()
    sites = norm_sites(model, pictures(2))
    layers = model.vit.layers
    expected = []
    for layer in layers:
        heads = layer.attention
        expected.append((layer.layernorm_before, (heads.q_proj, heads.k_proj, heads.v_proj), ()))
        expected.append((layer.layernorm_after, (layer.mlp.fc1,), ()))
    assert len(layers) == LAYERS
    assert [(site.norm, site.readers, site.others) for site in sites] == expected


def test_in_post_norm_models_the_residual_reads_them_too():
    for family in ("bert", "distilbert", "roberta"):
        sites = norm_sites(tiny_model(family), {"input_ids": torch.tensor([[2, 7, 9, 3]])})
        assert sites and all("add" in site.others for site in sites)


class Reader(nn.Module):
    def __init__(self, reads):
        super().__init__()
        self.norm, self.linear, self.other = nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.reads = reads

    def forward(self, x):
        return self.reads(self, self.norm(x))


def site_of(reads):
    return norm_sites(Reader(reads).eval(), {"x": torch.randn(3, 4)})


def test_every_way_to_read_a_norm_is_seen():
    assert site_of(lambda m, n: m.linear(n))[0].others == ()
    assert site_of(lambda m, n: m.linear(n) + m.other(n))[0].others == ()
    assert site_of(lambda m, n: m.linear(n.view(*n.shape)) + m.other(n))[0].others == ("view",)
    assert site_of(lambda m, n: torch.cat([m.linear(n), n]))[0].others == ("cat",)
    assert site_of(lambda m, n: m.linear(n).add_(n))[0].others == ("add_",)
    assert site_of(lambda m, n: n * 2) == ()


def test_a_linear_that_reads_something_else_as_well_is_told():
    (site,) = site_of(lambda m, n: m.linear(n) + m.linear(n * 0 + 1))
    assert "a linear that also reads something else" in site.others
    (twice,) = site_of(lambda m, n: m.linear(n) + m.linear(n))
    assert (len(twice.readers), twice.others) == (1, ())


def test_nothing_is_left_behind():
    model = tiny_vit()
    norm_sites(model, pictures(1))
    assert not any(module._forward_hooks for module in model.modules())
    assert model.config.hidden_size == HIDDEN
