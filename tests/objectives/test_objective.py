"""The whole loss: its sum, its logs, its precision, and what it refuses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from promptot.errors import PromptotError
from promptot.objectives import (
    BudgetStrength,
    Features,
    JointTransport,
    Objective,
    PointwiseJoint,
    PreservationResult,
    build_preservation,
    build_vocabulary,
)

LABELS = torch.tensor([0, 2, 1, 2])


@pytest.fixture
def student():
    generator = torch.Generator().manual_seed(0)
    image, text = (
        F.normalize(torch.randn(size, 16, generator=generator), dim=1) for size in (4, 3)
    )
    return Features(image.requires_grad_(), text.requires_grad_())


@pytest.fixture
def teacher(student):
    return Features(
        F.normalize(student.image.detach() + 0.1, dim=1),
        F.normalize(student.text.detach() - 0.1, dim=1),
    )


def test_is_the_weighted_sum(student, teacher):
    result = Objective(JointTransport(), strength=10.0)(student, teacher, LABELS, 20.0)
    logits = 20 * student.image @ student.text.T
    torch.testing.assert_close(result.logits, logits)
    torch.testing.assert_close(result.cross_entropy, F.cross_entropy(logits, LABELS))
    expected = JointTransport()(student, teacher, LABELS)
    torch.testing.assert_close(result.preservation, expected.value)
    torch.testing.assert_close(result.total, result.cross_entropy + 10 * result.preservation)
    torch.testing.assert_close(result.plan, expected.plan)
    assert result.off_diagonal_mass == expected.off_diagonal_mass
    assert result.plan_entropy == expected.plan_entropy


def test_cross_entropy_alone(student, teacher):
    result = Objective(None, strength=10.0)(student, teacher, LABELS, 20.0)
    assert torch.equal(result.total, result.cross_entropy)
    assert result.preservation == 0
    assert result.vocabulary == 0
    reports = (result.plan, result.off_diagonal_mass, result.plan_entropy)
    reports += (result.vocabulary_off_diagonal_mass, result.vocabulary_plan_entropy)
    assert reports == (None,) * 5


def test_strength_zero_reports_but_does_not_pull(student, teacher):
    result = Objective(JointTransport(), strength=0.0)(student, teacher, LABELS, 20.0)
    alone = Objective(None, strength=0.0)(student, teacher, LABELS, 20.0)
    assert result.preservation > 0
    pulled, free = (torch.autograd.grad(each.total, student.image)[0] for each in (result, alone))
    assert torch.equal(pulled, free)


def test_drift_of_both_modalities(student, teacher):
    result = Objective(None, strength=0.0)(student, teacher, LABELS, 20.0)
    for drift, ours, theirs in (
        (result.image_drift, student.image, teacher.image),
        (result.text_drift, student.text, teacher.text),
    ):
        expected = sum(torch.dist(a, b) for a, b in zip(ours, theirs, strict=True)) / len(ours)
        torch.testing.assert_close(drift, expected.detach())
        assert not drift.requires_grad


def test_only_the_loss_and_its_parts_carry_a_graph(student, teacher):
    result = Objective(JointTransport(), strength=1.0)(student, teacher, LABELS, 20.0)
    parts = {name: value for name, value in vars(result).items() if value is not None}
    with_graph = {name for name, value in parts.items() if value.requires_grad}
    assert with_graph == {"total", "cross_entropy", "preservation"}


def test_no_gradient_reaches_the_teacher(student, teacher):
    image, text = teacher.image.requires_grad_(), teacher.text.requires_grad_()
    learned = torch.tensor(3.0, requires_grad=True)
    objective = Objective(JointTransport(), strength=1.0)
    objective(student, Features(image, text), LABELS, learned.exp()).total.backward()
    assert image.grad is None
    assert text.grad is None
    assert student.image.grad.abs().sum() > 0
    assert student.text.grad.abs().sum() > 0
    assert learned.grad is not None


def test_gradient_by_finite_differences(student, teacher):
    objective = Objective(JointTransport(), strength=10.0)
    image, text = (
        part.detach().double().requires_grad_() for part in (student.image, student.text)
    )
    frozen = Features(teacher.image.double(), teacher.text.double())

    def total(image, text):
        return objective(Features(image, text), frozen, LABELS, 20.0).total

    assert torch.autograd.gradcheck(total, (image, text))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_and_autocast_lose_nothing_more(student, teacher, dtype):
    objective = Objective(JointTransport(), strength=10.0)

    def rounded(features, as_dtype):
        parts = (part.detach().to(dtype).to(as_dtype) for part in (features.image, features.text))
        return Features(*parts)

    expected = objective(
        rounded(student, torch.float32), rounded(teacher, torch.float32), LABELS, 20.0
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = objective(rounded(student, dtype), rounded(teacher, dtype), LABELS, 20.0)
    for name in ("total", "cross_entropy", "preservation", "logits", "image_drift", "text_drift"):
        assert getattr(result, name).dtype == torch.float32
        assert torch.equal(getattr(result, name), getattr(expected, name))


def test_any_callable_is_a_preservation_term(student, teacher):
    def cosine(student, teacher, labels, logit_scale):
        return PreservationResult((1 - (student.text * teacher.text).sum(dim=1)).mean())

    result = Objective(cosine, strength=8.0)(student, teacher, LABELS, 20.0)
    torch.testing.assert_close(result.total - result.cross_entropy, 8 * result.preservation)
    assert result.plan is None


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_refuses_a_strength(strength):
    with pytest.raises(PromptotError, match="strength of the preservation term"):
        Objective(PointwiseJoint(), strength)
    with pytest.raises(PromptotError, match="strength of the vocabulary term"):
        Objective(None, 0.0, vocabulary_strength=strength)


def stateful_objective():
    return Objective(
        build_preservation("ot", queue=16),
        10.0,
        vocabulary=build_vocabulary("ot"),
        vocabulary_strength=2.0,
        control=BudgetStrength(0.1, rate=0.5),
    )


def test_a_run_goes_on_bit_by_bit(student, teacher):
    def steps(objective, seeds):
        for seed in seeds:
            noise = torch.randn(4, 16, generator=torch.Generator().manual_seed(seed))
            moved = F.normalize(student.image.detach() + noise, dim=1).requires_grad_()
            result = objective(Features(moved, student.text), teacher, LABELS, 20.0)
            yield result.total, torch.autograd.grad(result.total, moved)[0], result.strength

    whole, resumed = stateful_objective(), stateful_objective()
    list(steps(whole, range(3)))
    state = {key: value.clone() for key, value in whole.state_dict().items()}
    assert set(state) == {"preservation.student", "preservation.teacher", "control.factor"}
    expected = list(steps(whole, range(3, 6)))
    resumed.load_state_dict(state)
    for ours, theirs in zip(steps(resumed, range(3, 6)), expected, strict=True):
        assert all(map(torch.equal, ours, theirs))


def test_a_trial_leaves_no_trace(student, teacher):
    objective = stateful_objective()
    before = objective.state_dict()
    first = objective(student, teacher, LABELS, 20.0).total
    assert set(objective.state_dict()) != set(before)
    objective.load_state_dict(before)
    assert objective.state_dict() == before
    assert torch.equal(objective(student, teacher, LABELS, 20.0).total, first)


def test_a_stateless_objective_has_no_state_and_refuses_one(student, teacher):
    objective = Objective(JointTransport(), 10.0)
    objective(student, teacher, LABELS, 20.0)
    assert objective.state_dict() == {}
    with pytest.raises(PromptotError, match=r"'control\.factor'"):
        objective.load_state_dict(stateful_objective().state_dict())


def test_refuses_the_state_of_a_queue_without_one():
    with pytest.raises(PromptotError, match="queue"):
        Objective(JointTransport(), 10.0).load_state_dict(
            {"preservation.student": torch.eye(2), "preservation.teacher": torch.eye(2)}
        )


@pytest.mark.parametrize("labels", [torch.tensor([0, 1]), torch.zeros(4), torch.zeros(4, 3)])
def test_refuses_labels(student, teacher, labels):
    with pytest.raises(PromptotError, match=r"one torch\.long label"):
        Objective(None, 1.0)(student, teacher, labels, 20.0)


def test_refuses_a_teacher_of_other_classes(student, teacher):
    fewer = Features(teacher.image, teacher.text[:2])
    with pytest.raises(PromptotError, match="same classes"):
        Objective(None, 1.0)(student, fewer, LABELS, 20.0)
    words = Features(teacher.image, teacher.text, teacher.text)
    with pytest.raises(PromptotError, match="same anchor words"):
        Objective(None, 1.0)(student, words, LABELS, 20.0)
