"""Which anchor words a step draws."""

from __future__ import annotations

import torch

from promptot.training.anchors import AnchorDraws


def test_draws_depend_on_seed_epoch_and_step_alone() -> None:
    places = [(seed, epoch, step) for seed in (1, 2) for epoch in (1, 2) for step in (1, 2)]
    drawn = [tuple(AnchorDraws(500, 8, seed).positions(e, s).tolist()) for seed, e, s in places]
    again = [tuple(AnchorDraws(500, 8, s).positions(*rest).tolist()) for s, *rest in places[::-1]]
    assert drawn == again[::-1]
    assert len(set(drawn)) == len(places)


def test_a_draw_has_no_word_twice_and_reaches_all_of_them() -> None:
    draws = AnchorDraws(vocabulary=30, per_step=10, seed=2**63 - 1)
    seen = set()
    for step in range(1, 40):
        words = draws.positions(1, step)
        assert words.dtype == torch.long
        assert len(words) == len(words.unique()) == draws.count == 10
        seen |= set(words.tolist())
    assert seen == set(range(30))


def test_a_short_vocabulary_is_taken_whole() -> None:
    for per_step in (None, 5, 6):
        assert AnchorDraws(5, per_step, seed=1).positions(3, 4).tolist() == [0, 1, 2, 3, 4]
