"""The preservation terms: how they relate to each other, and where they differ."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from promptot.errors import PromptotError
from promptot.objectives import (
    Features,
    JointSinkhornDivergence,
    JointTransport,
    PointwiseJoint,
)
from promptot.transport import solve_sinkhorn

TERMS = [
    PointwiseJoint(),
    JointTransport(),
    JointTransport(solver=solve_sinkhorn),
    JointSinkhornDivergence(),
]


def random_features(batch, classes, seed, width=16, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    image, text = (
        F.normalize(torch.randn(size, width, generator=generator, dtype=dtype), dim=1)
        for size in (batch, classes)
    )
    return Features(image, text)


def drifted(features, drift, seed=99):
    generator = torch.Generator().manual_seed(seed)

    def moved(points):
        step = torch.randn(points.shape, generator=generator, dtype=points.dtype)
        return F.normalize(points + drift * step, dim=1)

    return Features(moved(features.image), moved(features.text))


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


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 12),
    classes=st.integers(1, 8),
    drift=st.sampled_from([0.0, 1e-3, 0.1, 1.0, 10.0]),
    eta=st.sampled_from([0.5, 2.0]),
    seed=st.integers(0, 10**6),
)
def test_transport_is_at_most_pointwise_and_equal_at_the_identity(batch, classes, drift, eta, seed):
    teacher = random_features(batch, classes, seed)
    student = drifted(teacher, drift)
    labels = torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(seed))
    pointwise = PointwiseJoint(eta)(student, teacher, labels).value
    transport = JointTransport(eta)(student, teacher, labels)
    assert transport.value <= pointwise + 1e-6
    if transport.off_diagonal_mass == 0:
        torch.testing.assert_close(transport.value, pointwise, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("batch", [4, 10])
def test_a_shuffled_teacher_moves_all_the_mass(batch):
    student = random_features(batch, 1, seed=0)
    teacher = Features(student.image.roll(1, dims=0), student.text)
    labels = torch.zeros(batch, dtype=torch.long)
    result = JointTransport()(student, teacher, labels)
    assert result.off_diagonal_mass == 1
    assert result.plan_entropy == pytest.approx(0, abs=1e-6)
    assert result.value == 0
    assert PointwiseJoint()(student, teacher, labels).value > 0.1


@pytest.mark.parametrize("term", TERMS[2:])
def test_soft_plans_lie_between(term):
    teacher = random_features(8, 3, seed=0)
    result = term(drifted(teacher, 0.3), teacher, torch.arange(8) % 3)
    assert 0.001 < result.off_diagonal_mass < 0.9
    assert 0.001 < result.plan_entropy < 0.9
    torch.testing.assert_close(result.plan.sum(dim=0), torch.full((8,), 1 / 8))
    torch.testing.assert_close(result.plan.sum(dim=1), torch.full((8,), 1 / 8), atol=1e-4, rtol=0)


def test_entropic_cost_is_at_least_the_exact_one():
    teacher = random_features(8, 3, seed=0)
    arguments = drifted(teacher, 0.3), teacher, torch.arange(8) % 3
    exact = JointTransport()(*arguments).value
    soft = JointTransport(solver=functools.partial(solve_sinkhorn, epsilon=0.5))(*arguments).value
    assert soft > exact + 1e-3


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize(("batch", "classes"), [(1, 1), (1, 5), (4, 1), (4, 3), (9, 4)])
def test_every_term_takes_every_batch(term, batch, classes):
    teacher = random_features(batch, classes, seed=1)
    image, text = (part.clone().requires_grad_() for part in (teacher.image, teacher.text))
    labels = torch.arange(batch) % classes  # equal labels where batch > classes
    result = term(drifted(Features(image, text), 0.2), teacher, labels)
    assert result.value.shape == ()
    assert result.value > 0
    result.value.backward()
    assert image.grad.isfinite().all()
    assert text.grad.isfinite().all()
    assert text.grad[labels].abs().sum() > 0


@pytest.mark.parametrize("term", [PointwiseJoint(), JointTransport(), JointSinkhornDivergence()])
@pytest.mark.parametrize("batch", [1, 4, 9])
def test_zero_at_the_teacher_even_with_duplicates(term, batch):
    single = random_features(1, 2, seed=2)
    teacher = Features(single.image.repeat(batch, 1), single.text)
    result = term(teacher, teacher, torch.zeros(batch, dtype=torch.long))
    assert result.value.item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("term", [PointwiseJoint(), JointTransport()])
def test_gradients_by_finite_differences(term):
    teacher = random_features(4, 3, seed=3, width=3, dtype=torch.float64)
    student = drifted(teacher, 0.5)
    labels = torch.tensor([0, 2, 1, 2])

    def value(image, text):
        return term(Features(image, text), teacher, labels).value

    assert torch.autograd.gradcheck(
        value, (student.image.requires_grad_(), student.text.requires_grad_())
    )


@pytest.mark.parametrize("term", TERMS)
def test_sixteen_bit_features_give_a_full_precision_value(term):
    teacher = random_features(4, 3, seed=4)
    student = drifted(teacher, 0.1)
    labels = torch.tensor([0, 1, 2, 2])

    def half(features):
        return Features(features.image.bfloat16(), features.text.bfloat16())

    result = term(half(student), half(teacher), labels)
    assert result.value.dtype == torch.float32
    exact = term(half(student).at_least_float32(), half(teacher).at_least_float32(), labels)
    torch.testing.assert_close(result.value, exact.value)


@pytest.mark.parametrize("term", TERMS[1:])
def test_names_the_image_that_is_not_finite(term):
    teacher = random_features(4, 3, seed=5)
    student = Features(teacher.image.clone(), teacher.text)
    student.image[3, 0] = float("nan")
    with pytest.raises(PromptotError, match=r"source row 3 \(of 4\)"):
        term(student, teacher, torch.tensor([0, 1, 2, 2]))


@pytest.mark.parametrize("term", [PointwiseJoint, JointTransport, JointSinkhornDivergence])
def test_refuses_a_weight_that_is_not_positive(term):
    with pytest.raises(PromptotError, match="'eta' is -1"):
        term(eta=-1.0)


@pytest.mark.parametrize(
    ("image", "text"), [((2, 3), (4, 5)), ((3,), (4, 3)), ((2, 3), (3,)), ((1, 2, 3), (4, 3))]
)
def test_features_must_fit_together(image, text):
    with pytest.raises(PromptotError, match="don't fit together"):
        Features(torch.zeros(image), torch.zeros(text))
