"""Token reduction on examples whose answer is known, and what holds for all of them."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cosearch.model import VisionTransformer, build_model
from cosearch.model.mixers import Mixed
from cosearch.model.tokens import (
    Stream,
    class_scores,
    cluster,
    contributions,
    detailed,
    hired,
    make_reduction,
    match,
    merge,
    prune,
)
from cosearch.spec import TOKEN_METHODS, BlockSpec, ModelSpec, TaskShape
from cosearch.testing.models import random_model


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


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


QUARTERS = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]])


@pytest.mark.parametrize(
    ("sums", "keep", "budgets"),
    [
        ((3.0, 3.0, 3.0), 6, (2, 2, 2)),
        ((4.0, 2.0, 0.0), 6, (4, 2, 0)),
        ((6.0, 3.0, 0.5), 5, (3, 2, 0)),  # divisors 1/2, 3/2, 5/2: 12, 4, 2.4 / 6, 2 / 1
        ((8.0, 1.0, 1.0), 8, (4, 2, 2)),  # quota of the first is 6.4, but it has 4 tokens
        ((5.0, 1.9, 1.9), 3, (1, 1, 1)),  # divisors 1, 2, ... would give 2, 1, 0
        ((0.0, 0.0, 0.0), 3, (1, 1, 1)),
        ((1.0, 0.0, 0.0), 12, (4, 4, 4)),
    ],
)
def test_budgets_follow_the_attention_to_each_part(
    sums: tuple[float, ...], keep: int, budgets: tuple[int, ...]
) -> None:
    scores = torch.tensor([[total / 4 for total in sums for _ in range(4)]])
    picked = hired(scores, QUARTERS, 3, keep)
    assert picked.shape == (1, keep)
    assert tuple(torch.bincount(QUARTERS[0, picked[0]], minlength=3).tolist()) == budgets


def test_each_part_keeps_its_best() -> None:
    scores = torch.tensor([[1.0, 4.0, 2.0, 3.0, 5.0, 1.0, 3.0, 1.0, 0.0, 0.0, 0.0, 0.5]])
    assert hired(scores, QUARTERS, 3, 4).tolist() == [[1, 3, 4, 6]]


def test_parts_are_quarters_of_the_image_and_follow_the_tokens() -> None:
    task = TaskShape(image=(12, 20), channels=1, classes=2)
    block = BlockSpec(heads=1, mlp_hidden=4, keep_tokens=8)
    spec = ModelSpec(
        task=task,
        patch=4,
        dim=4,
        blocks=(block, block.__class__(heads=1, mlp_hidden=4, keep_tokens=4)),
        token_method="hired",
    )
    first, second = (make_reduction(spec, index) for index in range(2))
    assert first is not None
    assert second is not None
    assert first.part.view(3, 5).tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [2, 2, 2, 3, 3]]
    x = torch.arange(16.0).view(1, 16, 1)
    # attention to the lower left part only: its tokens are 10, 11, 12
    attention = torch.zeros(1, 1, 16, 16)
    attention[0, 0, 0, 1 + 10 : 1 + 13] = torch.tensor([0.2, 0.3, 0.1])
    stream = first(Stream(x), Mixed(x, map=attention))
    place = stream.place
    assert {10, 11, 12} <= set(place[0].tolist())
    assert stream.x[0, 1:, 0].tolist() == [index + 1 for index in place[0].tolist()]
    attention = torch.zeros(1, 1, 9, 9)
    attention[0, 0, 0, 1:] = (place[0] == 12).float()
    after = second(stream, Mixed(stream.x, map=attention))
    assert 12 in after.place[0].tolist()
    assert 13.0 in after.x[0, :, 0].tolist()


PARTS = st.integers(1, 4)


@st.composite
def attended(draw: Any) -> tuple[Tensor, Tensor, int, int]:
    parts, tokens = draw(PARTS), draw(st.integers(1, 14))
    score = st.one_of(st.just(0.0), st.floats(0, 1, width=32), st.sampled_from([0.25, 0.5]))
    scores = draw(st.lists(score, min_size=tokens, max_size=tokens))
    part = draw(st.lists(st.integers(0, parts - 1), min_size=tokens, max_size=tokens))
    return torch.tensor([scores]), torch.tensor([part]), parts, draw(st.integers(1, tokens))


@settings(deadline=None)
@given(attended())
def test_any_budget_is_spent_exactly(given_: tuple[Tensor, Tensor, int, int]) -> None:
    scores, part, parts, keep = given_
    picked = hired(scores, part, parts, keep)[0].tolist()
    assert len(picked) == keep
    assert picked == sorted(set(picked))
    assert 0 <= picked[0] <= picked[-1] < scores.shape[1]
    for one in range(parts):  # nothing dropped in a part is better than what is kept in it
        inside = [i for i in range(scores.shape[1]) if part[0, i] == one]
        dropped = [float(scores[0, i]) for i in inside if i not in picked]
        assert all(float(scores[0, i]) >= max(dropped, default=0.0) for i in inside if i in picked)


@settings(deadline=None)
@given(attended(), st.data())
def test_more_attention_to_a_part_never_gives_it_fewer(given_: tuple[Tensor, Tensor, int, int], data: Any) -> None:
    scores, part, parts, keep = given_
    which = data.draw(st.integers(0, scores.shape[1] - 1))
    more = scores.clone()
    more[0, which] += data.draw(st.floats(0.125, 2.0, width=32))
    one = int(part[0, which])
    before, after = (int((part[0, hired(s, part, parts, keep)[0]] == one).sum()) for s in (scores, more))
    assert after >= before


def test_clusters_average_what_is_nearest_to_each_centre() -> None:
    x = torch.tensor([[[9.0], [1.0], [2.0], [4.0], [8.0]]])
    size = torch.tensor([[1.0, 1.0, 3.0, 1.0, 1.0]])
    metric = torch.tensor([[[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]]])
    out, sizes = cluster(x, size, metric, torch.tensor([[0.9, 0.0, 0.8, 0.1]]), keep=2)
    # centres are tokens 1 and 3; 2 is nearer to 1, 4 nearer to 3
    torch.testing.assert_close(out, torch.tensor([[[9.0], [(1 + 3 * 2) / 4], [(4 + 8) / 2]]]))
    torch.testing.assert_close(sizes, torch.tensor([[1.0, 4.0, 2.0]]))


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.booleans(), st.data())
def test_clusters_lose_nothing_and_keep_every_centre(seed: int, tokens: int, coarse: bool, data: Any) -> None:
    keep = data.draw(st.integers(1, tokens))
    x, scores = numbers(seed, 2, tokens + 1, 3), numbers(seed + 1, 2, tokens).abs()
    metric = torch.ones(2, tokens, 4) / 2 if coarse else nn.functional.normalize(numbers(seed + 2, 2, tokens, 4), dim=2)
    size = torch.randint(1, 5, (2, tokens + 1), generator=torch.Generator().manual_seed(seed)).float()
    out, sizes = cluster(x, size, metric, scores, keep)
    assert out.shape == (2, keep + 1, 3)
    assert torch.equal(out[:, 0], x[:, 0])
    torch.testing.assert_close(sizes.sum(1), size.sum(1))
    torch.testing.assert_close((out * sizes.unsqueeze(2)).sum(1), (x * size.unsqueeze(2)).sum(1), rtol=1e-4, atol=1e-4)
    centres = scores.topk(keep, dim=1).indices.sort(dim=1).values
    assert bool((sizes[:, 1:] >= size[:, 1:].gather(1, centres)).all())
    if coarse:  # all others go to the first, no centre to another
        torch.testing.assert_close(sizes[:, 2:], size[:, 1:].gather(1, centres)[:, 1:])


def test_clusters_of_equal_tokens_are_these_tokens() -> None:
    x = torch.full((1, 7, 3), 0.7)
    metric = nn.functional.normalize(numbers(3, 1, 6, 2), dim=2)
    out, sizes = cluster(x, torch.ones(1, 7), metric, numbers(4, 1, 6), keep=3)
    torch.testing.assert_close(out, torch.full((1, 4, 3), 0.7))
    assert float(sizes.sum()) == 7


def test_contributions_equal_a_loop_over_heads_and_queries() -> None:
    attention, values = numbers(0, 2, 3, 5, 5).softmax(3), numbers(1, 2, 3, 5, 4)
    found = contributions(attention, values)
    assert found.shape == (2, 4)
    for image, token in itertools.product(range(2), range(4)):
        total = 0.0
        for head, query in itertools.product(range(3), range(5)):
            length = sum(float(v) ** 2 for v in values[image, head, token + 1]) ** 0.5
            total += float(attention[image, head, query, token + 1]) * length
        assert float(found[image, token]) == pytest.approx(total, rel=1e-5)


def test_the_least_contributing_go() -> None:
    spec = small("contribution", 2)
    reduction = make_reduction(spec, 0)
    assert reduction is not None
    attention = torch.full((1, 1, 5, 5), 0.2)
    values = torch.tensor([9.0, 1.0, 5.0, 0.5, 2.0]).view(1, 1, 5, 1)
    stream = reduction(Stream(torch.arange(5.0).view(1, 5, 1)), Mixed(torch.zeros(1), map=attention, values=values))
    assert stream.x.flatten().tolist() == [0.0, 2.0, 4.0]


def small(method: str, keep: int | None = None, **fields: Any) -> ModelSpec:
    """Two blocks, the first of which reduces 4 tokens (or 16, with core tokens)."""
    block = BlockSpec(heads=1, mlp_hidden=8)
    blocks = (dataclasses.replace(block, keep_tokens=keep), block)
    task = TaskShape(image=(8, 8), channels=2, classes=3)
    return ModelSpec(task=task, patch=4, dim=8, blocks=blocks, token_method=method, **fields)


def test_detail_is_added_to_the_image_tokens_alone() -> None:
    x, lifted = numbers(0, 2, 5, 3), numbers(1, 2, 4, 3)
    out = detailed(x, lifted)
    assert torch.equal(out[:, 0], x[:, 0])
    assert torch.equal(out[:, 1:], x[:, 1:] + lifted)


def test_without_a_lift_detail_is_plain_dropping() -> None:
    """The stem sees half the resolution: the same as a model of half the patch on the halved image that drops."""
    model = build_model(small("detail", 2)).eval()
    with torch.no_grad():
        model.blocks[0].reduction.lift.weight.zero_()
    images = numbers(5, 3, 2, 8, 8)
    halved = TaskShape(image=(4, 4), channels=2, classes=3)
    whole = build_model(dataclasses.replace(small("none"), task=halved, patch=2)).eval()
    state = {name: value for name, value in model.state_dict().items() if ".lift." not in name}
    whole.load_state_dict(state)
    first, second = whole.blocks
    embedded = whole._embedded(nn.functional.avg_pool2d(images, 2))
    mixed = first.mixer(first.norm1(embedded.x), None)
    x = embedded.x + mixed.out
    best = class_scores(mixed.map if mixed.map is not None else attention_of(first, embedded.x)).topk(2).indices
    index = torch.cat((torch.zeros(3, 1, dtype=torch.long), best.sort(1).values + 1), dim=1)
    x = x.gather(1, index.unsqueeze(2).expand(-1, -1, 8))
    x = x + first.mlp(first.norm2(x))
    logits = whole.head(whole.norm(second(Stream(x)).x[:, 0]))
    torch.testing.assert_close(model(images).flatten(1), logits, rtol=1e-4, atol=1e-5)


def attention_of(block: nn.Module, x: Tensor) -> Tensor:
    q, k, _ = block.mixer.split(block.norm1(x))
    return (q @ k.transpose(2, 3) / block.mixer.depth**0.5).softmax(3)


def test_the_detail_of_dropped_tokens_does_not_matter_and_that_of_kept_ones_does() -> None:
    model = build_model(small("detail", 2)).eval()
    images = numbers(6, 1, 2, 8, 8)
    embedded = model._embedded(images)
    kept = class_scores(attention_of(model.blocks[0], embedded.x))[0].topk(2).indices.tolist()
    for token in range(4):
        row, column = token // 2 * 4, token % 2 * 4
        other = images.clone()
        # a chequered pattern, which half the resolution does not see
        pattern = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)
        other[:, :, row : row + 4, column : column + 4] += pattern
        torch.testing.assert_close(model._embedded(other).x, embedded.x, rtol=0, atol=1e-5)
        same = torch.allclose(model(other), model(images), rtol=0, atol=1e-5)
        assert same == (token not in kept), token


def test_detail_is_given_once() -> None:
    block = BlockSpec(heads=1, mlp_hidden=8)
    blocks = (block, *(dataclasses.replace(block, keep_tokens=keep) for keep in (3, 2)))
    model = build_model(dataclasses.replace(small("detail", 2), blocks=blocks))
    lifts = [None if b.reduction is None else b.reduction.lift for b in model.blocks]
    assert [lift is not None for lift in lifts] == [False, True, False]


def counts(model: VisionTransformer, images: Tensor) -> list[tuple[int, int]]:
    """Tokens into each block's mixer and out of each block."""
    seen: list[tuple[int, int]] = []
    for block in model.blocks:

        def finish(_: nn.Module, args: tuple[Stream], out: Stream) -> None:
            seen.append((args[0].x.shape[1], out.x.shape[1]))

        block.register_forward_hook(finish)
    model(images)
    return seen


@pytest.mark.parametrize("method", list(TOKEN_METHODS))
def test_counts_are_static_and_the_specs_and_a_model_is_a_function(method: str) -> None:
    for seed in range(8):
        spec = random_model(seed, token_method=method, formats=("fp32",))
        model = build_model(spec, seed).eval()
        for name, images in (("noise", numbers(seed, 3, spec.task.channels, *spec.task.image)),):
            images = torch.cat((images, torch.zeros_like(images)))  # all tokens alike but for their positions
            with torch.no_grad():
                assert tuple(counts(model, images)) == spec.tokens, (name, spec)
                logits = model(images)
                assert torch.equal(model(images), logits)
                assert bool(torch.isfinite(logits).all()), spec
                torch.testing.assert_close(model(images[1:2]), logits[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [name for name, one in TOKEN_METHODS.items() if one.after_training])
def test_a_method_for_after_training_takes_the_weights_of_a_model_with_all_tokens(method: str) -> None:
    trained = build_model(small("none"), seed=4).eval()
    spec = small(method, None if method == "none" else 3)
    assert {name for name, _ in build_model(spec).named_parameters()} == {n for n, _ in trained.named_parameters()}
    model = build_model(spec, seed=5).eval()
    model.load_state_dict(trained.state_dict())
    images = numbers(8, 64, 2, 8, 8)
    one_less, all_of_them = model(images).detach(), trained(images).detach()
    assert bool(torch.isfinite(one_less).all())
    # one token of four less is near to none less: much nearer than images are to each other
    spread = float((all_of_them - all_of_them.mean(0)).square().mean())
    assert float((one_less - all_of_them).square().mean()) < 0.5 * spread
    model.reducing = False
    torch.testing.assert_close(model(images), all_of_them, rtol=1e-4, atol=1e-5)


def test_methods_with_weights_of_their_own_are_not_for_after_training() -> None:
    plain = {name for name, _ in build_model(small("none")).named_parameters()}
    for name, method in TOKEN_METHODS.items():
        spec = small(name, None if name == "none" else 3)
        same = {parameter for parameter, _ in build_model(spec).named_parameters()} == plain
        assert same == method.after_training, name
