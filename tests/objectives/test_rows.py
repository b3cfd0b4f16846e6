"""Rows × comparison: how the terms relate, where they differ, and what a queue changes."""

from __future__ import annotations

import functools

import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from promptot.errors import PromptotError
from promptot.objectives import (
    Features,
    JointTransport,
    Pointwise,
    PointwiseJoint,
    PreserveRows,
    Transport,
    TransportDivergence,
    build_preservation,
)
from promptot.transport import solve_exact, solve_partial, solve_sinkhorn

SOFT = [
    PreserveRows(Transport(solver=solve_sinkhorn)),
    PreserveRows(TransportDivergence()),
    build_preservation("ot", solver="unbalanced"),
]


def test_joint_cost_by_hand():
    teacher = Features(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.6, 0.8]] * 3))
    student = Features(torch.tensor([[0.8, 0.6], [0.0, 1.0]]), torch.tensor([[1.0, 0.0]] * 3))
    labels = torch.tensor([2, 2])
    # Image drift 0.04 + 0.36 and 0; text drift 0.16 + 0.64 for both.
    expected = 0.25 * ((0.4 + 0.8) + (0.0 + 0.8)) / 2
    assert PointwiseJoint(eta=0.25)(student, teacher, labels).value == pytest.approx(expected)
    result = JointTransport(eta=0.25)(student, teacher, labels)
    assert result.value == pytest.approx(expected)
    assert result.off_diagonal_mass == 0
    by_rows = {
        rows: PreserveRows(Transport(0.25), rows)(student, teacher, labels).value.item()
        for rows in ("image", "text", "separate")
    }
    assert by_rows == pytest.approx({"image": 0.05, "text": 0.2, "separate": 0.25})


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 12),
    classes=st.integers(1, 8),
    drift=st.sampled_from([0.0, 1e-3, 0.1, 1.0, 10.0]),
    eta=st.sampled_from([0.5, 2.0]),
    seed=st.integers(0, 10**6),
)
def test_separate_is_at_most_joint_which_is_at_most_pointwise(
    batch, classes, drift, eta, seed, random_features, drifted
):
    teacher = random_features(batch, classes, seed)
    student = drifted(teacher, drift)
    labels = torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(seed))
    pointwise = PointwiseJoint(eta)(student, teacher, labels).value
    joint = JointTransport(eta)(student, teacher, labels)
    separate = PreserveRows(Transport(eta), "separate")(student, teacher, labels)
    assert separate.value <= joint.value + 1e-6
    assert joint.value <= pointwise + 1e-6
    if joint.off_diagonal_mass == 0:
        torch.testing.assert_close(joint.value, pointwise, rtol=1e-5, atol=1e-9)
    if separate.off_diagonal_mass == 0:
        torch.testing.assert_close(separate.value, pointwise, rtol=1e-5, atol=1e-9)


def test_separate_adds_two_terms_and_averages_what_they_report(random_features, drifted):
    teacher = random_features(8, 5, seed=0)
    arguments = drifted(teacher, 2.0), teacher, torch.arange(8) % 5
    image, text, both = (
        PreserveRows(Transport(), rows)(*arguments) for rows in ("image", "text", "separate")
    )
    torch.testing.assert_close(both.value, image.value + text.value)
    assert image.off_diagonal_mass != text.off_diagonal_mass
    torch.testing.assert_close(
        both.off_diagonal_mass, (image.off_diagonal_mass + text.off_diagonal_mass) / 2
    )
    assert both.plan is None
    assert image.plan.shape == text.plan.shape == (8, 8)


@pytest.mark.parametrize("batch", [4, 10])
def test_a_shuffled_teacher_moves_all_the_mass(batch, random_features):
    student = random_features(batch, 1, seed=0)
    teacher = Features(student.image.roll(1, dims=0), student.text)
    labels = torch.zeros(batch, dtype=torch.long)
    result = JointTransport()(student, teacher, labels)
    assert result.off_diagonal_mass == 1
    assert result.plan_entropy == pytest.approx(0, abs=1e-6)
    assert result.value == 0
    assert PointwiseJoint()(student, teacher, labels).value > 0.1


def test_mass_that_goes_to_a_copy_of_its_own_teacher_has_not_moved(random_features, drifted):
    """Six images of two classes: to text rows it is the same which of a class's rows they take."""
    teacher = random_features(6, 2, seed=1)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    term = PreserveRows(Transport(solver=functools.partial(solve_sinkhorn, epsilon=0.01)), "text")
    result = term(drifted(teacher, 0.05), teacher, labels)
    assert result.plan.diagonal().sum() < 0.4  # a third of each row
    assert result.off_diagonal_mass < 1e-6
    assert result.plan_entropy < 1e-4


@pytest.mark.parametrize("term", SOFT)
def test_soft_plans_lie_between(term, random_features, drifted):
    teacher = random_features(8, 3, seed=0)
    result = term(drifted(teacher, 0.3), teacher, torch.arange(8) % 3)
    assert 0.001 < result.off_diagonal_mass < 0.9
    assert 0.001 < result.plan_entropy < 0.9
    torch.testing.assert_close(result.plan.sum(), torch.tensor(1.0), rtol=0, atol=0.3)


def test_entropic_cost_is_at_least_the_exact_one(random_features, drifted):
    teacher = random_features(8, 3, seed=0)
    arguments = drifted(teacher, 0.3), teacher, torch.arange(8) % 3
    exact = JointTransport()(*arguments).value
    soft = JointTransport(solver=functools.partial(solve_sinkhorn, epsilon=0.5))(*arguments).value
    assert soft > exact + 1e-3


def test_partial_transport_forgives_the_image_that_drifted_most(random_features, drifted):
    teacher = random_features(4, 2, seed=0)
    image = teacher.image.clone()
    image[2] = -image[2]
    student = Features(image.requires_grad_(), drifted(teacher, 0.1).text)
    term = JointTransport(solver=functools.partial(solve_partial, mass=0.75))
    term(student, teacher, torch.tensor([0, 1, 0, 1])).value.backward()
    assert (image.grad[2] == 0).all()
    full = PointwiseJoint()(student, teacher, torch.tensor([0, 1, 0, 1])).value
    assert torch.autograd.grad(full, image)[0][2].abs().max() > 0.1


@pytest.mark.parametrize("rows", ["joint", "image", "text", "separate"])
@pytest.mark.parametrize("comparison", [Pointwise(), Transport()])
def test_gradients_by_finite_differences(rows, comparison, random_features, drifted):
    teacher = random_features(4, 3, seed=3, width=3, dtype=torch.float64)
    student = drifted(teacher, 0.5)
    labels = torch.tensor([0, 2, 1, 2])

    def value(image, text):
        return PreserveRows(comparison, rows)(Features(image, text), teacher, labels).value

    assert torch.autograd.gradcheck(
        value, (student.image.requires_grad_(), student.text.requires_grad_())
    )


@pytest.mark.parametrize("comparison", [Pointwise, Transport, TransportDivergence])
def test_refuses_a_weight_that_is_not_positive(comparison):
    with pytest.raises(PromptotError, match="'eta' is -1"):
        comparison(eta=-1.0)


def test_refuses_unknown_rows():
    with pytest.raises(PromptotError, match="no rows 'images'. Did you mean 'image'"):
        PreserveRows(Pointwise(), "images")


def steps(random_features, drifted, count, batch=3):
    """Batches of new images, each with a student that drifted elsewhere."""
    for step in range(count):
        teacher = random_features(batch, 4, seed=step, dtype=torch.float64)
        labels = torch.arange(batch) + step
        yield drifted(teacher, 1.0, seed=100 + step), teacher, labels % 4


def test_a_queue_is_transport_between_the_last_rows(random_features, drifted):
    """By hand: POT between all that was seen; the gradient is N/B times that of its value."""
    term = PreserveRows(Transport(0.7), queue=7)
    seen = []
    for student, teacher, labels in steps(random_features, drifted, 4):
        image = student.image.clone().requires_grad_()
        moving = Features(image, student.text)
        result = term(moving, teacher, labels)
        result.value.backward()
        seen.insert(0, (student.joint_rows(labels), teacher.joint_rows(labels)))
        ours, theirs = (torch.cat(rows)[:7] for rows in zip(*seen, strict=True))

        def by_pot(first, ours=ours, theirs=theirs):
            rows = ours.clone()
            rows[:3, :16] = first
            cost = 0.7 * (rows[:, None] - theirs).square().sum(dim=2).numpy()
            return ot.emd2([], [], cost)

        assert result.plan.shape == (len(ours), len(ours))
        assert result.value.item() == pytest.approx(by_pot(student.image))
        step = 1e-5 * torch.randn(3, 16, generator=torch.Generator().manual_seed(0)).double()
        slope = by_pot(student.image + step) - by_pot(student.image - step)
        expected = len(ours) / 3 * slope / 2
        assert (image.grad * step).sum().item() == pytest.approx(expected, rel=1e-4)
    assert len(ours) == 7


@pytest.mark.parametrize("solver", ["exact", "sinkhorn-divergence", "unbalanced", "partial"])
def test_a_current_row_weighs_what_it_weighs_without_a_queue(solver, random_features, drifted):
    """With rows that are far from all others, what is in the queue makes no difference."""
    options = {"solver": solver, "eta": 0.5}
    options |= {"epsilon": 0.001} if solver in ("sinkhorn-divergence", "unbalanced") else {}
    options |= {"marginal_penalty": 50.0} if solver == "unbalanced" else {}
    options |= {"mass": 1.0} if solver == "partial" else {}
    queued = build_preservation("ot", queue=12, **options)
    alone = build_preservation("ot", **options)
    for student, teacher, labels in steps(random_features, drifted, 3, batch=4):
        near = Features(
            (teacher.image + 0.01 * student.image).requires_grad_(), teacher.text.clone()
        )
        gradients = [
            torch.autograd.grad(term(near, teacher, labels).value, near.image)[0]
            for term in (alone, queued)
        ]
        torch.testing.assert_close(gradients[1], gradients[0], rtol=0.05, atol=2e-5)


def test_only_the_batch_has_a_gradient_and_the_first_step_is_that_without_a_queue(
    random_features, drifted
):
    term, alone = PreserveRows(Transport(), queue=64), JointTransport()
    first, second = steps(random_features, drifted, 2)
    old = first[0].image.requires_grad_()
    torch.testing.assert_close(term(*first).value, alone(*first).value)
    term(*second).value  # noqa: B018
    image = second[0].image.requires_grad_()
    value = term(*second).value
    assert torch.autograd.grad(value, old, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(value, image)[0].abs().sum() > 0


@pytest.mark.parametrize("solver", [solve_exact, functools.partial(solve_sinkhorn, epsilon=0.01)])
def test_the_same_views_again_are_the_same_points(solver, random_features, drifted):
    """Kept views come back every epoch: a row then has several copies of its teacher to go to."""
    teacher = random_features(4, 4, seed=0)
    term = PreserveRows(Transport(solver=solver), queue=16)
    for epoch in range(4):
        student = drifted(teacher, 0.05, seed=epoch)
        if epoch == 3:  # the first two images trade places: 2 of 16 rows move
            swapped = torch.tensor([1, 0, 2, 3])
            student = Features(student.image[swapped], student.text[swapped])
        result = term(student, teacher, torch.arange(4))
    assert result.off_diagonal_mass.item() == pytest.approx(2 / 16, abs=1e-4)
    assert result.plan_entropy == pytest.approx(0, abs=1e-3)


def test_a_queue_smaller_than_the_batch_is_the_batch(random_features, drifted):
    term, alone = PreserveRows(Transport(), queue=2), JointTransport()
    for batch in steps(random_features, drifted, 3):
        torch.testing.assert_close(term(*batch).value, alone(*batch).value)


def test_a_queue_forgets_nothing_but_what_does_not_fit(random_features, drifted):
    """An incomplete batch leaves more room for older rows."""
    term = PreserveRows(Transport(solver=solve_sinkhorn), queue=8)
    sizes = []
    for step, batch in enumerate([3, 3, 3, 1, 3]):
        teacher = random_features(batch, 4, seed=step)
        sizes.append(len(term(drifted(teacher, 0.3), teacher, torch.arange(batch)).plan))
    assert sizes == [3, 6, 8, 8, 8]


def test_state_of_a_queue_goes_on_exactly(random_features, drifted):
    batches = list(steps(random_features, drifted, 6))
    whole, resumed = (PreserveRows(Transport(), "separate", queue=10) for _ in range(2))
    assert whole.state_dict() == {}
    for batch in batches[:3]:
        whole(*batch)
    state = whole.state_dict()
    expected = [whole(*batch).value for batch in batches[3:]]
    resumed(*batches[5])  # has to be forgotten
    resumed.load_state_dict(state)
    assert [resumed(*batch).value for batch in batches[3:]] == expected
    resumed.load_state_dict({})
    assert torch.equal(
        resumed(*batches[0]).value,
        PreserveRows(Transport(), "separate")(*batches[0]).value,
    )


@pytest.mark.parametrize("size", [0, -1, 4097])
def test_refuses_a_queue(size):
    with pytest.raises(PromptotError, match=f"A feature queue of {size} rows"):
        PreserveRows(Transport(), queue=size)
