"""Muon: orthogonal directions, and steps of AdamW's size."""

from __future__ import annotations

import torch

from codealign.nano.muon import Muon, orthogonal


def test_singular_values_go_near_one_and_singular_vectors_stay() -> None:
    torch.manual_seed(0)
    for shape in ((3, 24, 48), (3, 48, 24), (1, 16, 16)):
        matrices = torch.randn(shape)
        found = orthogonal(matrices)
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.3
        assert values.max() < 1.3
        left, _, right = torch.linalg.svd(matrices, full_matrices=False)
        turned = left.mT @ found @ right.mT
        assert torch.allclose(turned, torch.diag_embed(torch.diagonal(turned, dim1=-2, dim2=-1)), atol=1e-4)


def test_a_step_is_as_large_as_adamws_and_decays_the_weights() -> None:
    torch.manual_seed(1)
    weight = torch.nn.Parameter(torch.full((32, 64), 3.0))
    optimizer = Muon([weight], lr=0.01, weight_decay=0.5)
    weight.grad = torch.randn(32, 64) * 1e-6
    optimizer.step()
    moved = weight.detach() - 3.0 * (1 - 0.01 * 0.5)
    size = moved.square().mean().sqrt()
    assert 0.5 * 0.2 * 0.01 < size < 1.5 * 0.2 * 0.01


def test_it_finds_the_least_squares_solution() -> None:
    torch.manual_seed(2)
    wanted, data = torch.randn(8, 4), torch.randn(256, 8)
    weight = torch.nn.Parameter(torch.zeros(8, 4))
    optimizer = Muon([weight], lr=0.2, weight_decay=0.0)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 200)
        optimizer.zero_grad()
        (data @ weight - data @ wanted).square().mean().backward()
        optimizer.step()
    assert torch.allclose(weight, wanted, atol=0.02)
