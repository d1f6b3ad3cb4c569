"""Pruning and merging on examples whose answer is known."""

from __future__ import annotations

import torch

from cosearch.model.tokens import class_scores, match, merge, prune


def test_scores_are_the_class_rows_mean_over_heads() -> None:
    attention = torch.zeros(1, 2, 4, 4)
    attention[0, 0, 0] = torch.tensor([0.1, 0.2, 0.3, 0.4])
    attention[0, 1, 0] = torch.tensor([0.1, 0.4, 0.5, 0.0])
    torch.testing.assert_close(class_scores(attention), torch.tensor([[0.3, 0.4, 0.2]]))


def test_pruning_keeps_the_most_attended_in_order_and_fuses_the_rest() -> None:
    x = torch.arange(7.0).view(1, 7, 1).repeat(2, 1, 3)
    scores = torch.tensor([[0.1, 0.9, 0.3, 0.5, 0.0, 0.8], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])
    out = prune(x, scores, keep=4)
    # image tokens are 1 to 6; the first image keeps 2, 4, 6 and fuses 1, 3, 5 with weights 0.1, 0.3, 0
    fused = [(0.1 * 1 + 0.3 * 3) / 0.4, (3 * 4 + 2 * 5 + 1 * 6) / 6]
    expected = torch.tensor([[0.0, 2.0, 4.0, 6.0, fused[0]], [0.0, 1.0, 2.0, 3.0, fused[1]]])
    torch.testing.assert_close(out, expected.unsqueeze(2).expand(-1, -1, 3), rtol=1e-4, atol=1e-4)


def test_pruning_breaks_ties_by_position_and_survives_all_zero_scores() -> None:
    x = torch.arange(6.0).view(1, 6, 1)
    out = prune(x, torch.zeros(1, 5), keep=3).flatten()
    torch.testing.assert_close(out, torch.tensor([0.0, 1.0, 2.0, 4.0]))


def test_matching_takes_the_most_similar_pairs() -> None:
    angles = torch.tensor([[0.0, 0.9, 2.0, 2.1, 4.0, 0.3]])
    metric = torch.stack((angles.cos(), angles.sin()), dim=2)
    stay, going, target = match(metric, keep=4)
    # sources 0.0, 2.0, 4.0; targets 0.9, 2.1, 0.3: nearest 2.0-2.1, then 0.0-0.3
    assert stay.tolist() == [[2]]
    assert going.tolist() == [[1, 0]]
    assert target.tolist() == [[1, 2]]


def test_matching_breaks_ties_by_position() -> None:
    stay, going, target = match(torch.ones(1, 6, 2) / 2**0.5, keep=4)
    assert stay.tolist() == [[2]]
    assert going.tolist() == [[0, 1]]
    assert target.tolist() == [[0, 0]]


def test_merging_averages_by_size_and_keeps_the_class_token() -> None:
    x = torch.tensor([[[9.0], [1.0], [4.0], [2.0], [8.0]]])
    size = torch.tensor([[1.0, 1.0, 3.0, 1.0, 1.0]])
    metric = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
    out, sizes = merge(x, size, metric, keep=3)
    # token 1 (size 1) goes into token 4 (size 3)
    torch.testing.assert_close(out, torch.tensor([[[9.0], [2.0], [(1 + 3 * 4) / 4], [8.0]]]))
    torch.testing.assert_close(sizes, torch.tensor([[1.0, 1.0, 4.0, 1.0]]))


def test_several_sources_may_share_a_target_and_nothing_is_lost() -> None:
    generator = torch.Generator().manual_seed(0)
    x, metric = torch.randn(5, 10, 4, generator=generator), torch.randn(5, 9, 3, generator=generator)
    size = torch.randint(1, 4, (5, 10), generator=generator).float()
    metric = torch.nn.functional.normalize(metric, dim=2)
    out, sizes = merge(x, size, metric, keep=5)
    assert out.shape == (5, 6, 4)
    torch.testing.assert_close(sizes.sum(1), size.sum(1))
    before, after = (x * size.unsqueeze(2)).sum(1), (out * sizes.unsqueeze(2)).sum(1)
    torch.testing.assert_close(after, before)
