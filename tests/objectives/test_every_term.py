"""Every term × every kind of input: what all preservation terms have in common."""

from __future__ import annotations

import pytest
import torch

from promptot.errors import PromptotError
from promptot.objectives import Features, Objective, build_preservation

ROWS = ("joint", "image", "text", "separate")
SOLVERS = ("exact", "sinkhorn", "sinkhorn-divergence", "unbalanced", "partial")
TERMS = {
    **{f"pointwise {rows}": ("pointwise", {"rows": rows}) for rows in ROWS},
    **{f"{solver} {rows}": ("ot", {"solver": solver, "rows": rows}) for solver in SOLVERS
       for rows in ROWS},
    **{f"{solver} queue": ("ot", {"solver": solver, "queue": 16}) for solver in SOLVERS},
    "text-cosine": ("text-cosine", {}),
    "promptsrc": ("promptsrc", {}),
    "logits": ("logits", {}),
}  # fmt: skip
every_term = pytest.mark.parametrize("name", TERMS)


def build(name):
    term, options = TERMS[name]
    return build_preservation(term, **options)


def with_gradient(features):
    parts = (part.detach().clone().requires_grad_() for part in (features.image, features.text))
    return Features(*parts)


@every_term
@pytest.mark.parametrize(("batch", "classes"), [(1, 1), (1, 5), (4, 1), (9, 4)])
def test_takes_every_batch(name, batch, classes, random_features, drifted):
    teacher = random_features(batch, classes, seed=1)
    student = with_gradient(drifted(teacher, 0.2))
    labels = torch.arange(batch) % classes  # equal labels where batch > classes
    term = build(name)
    for _ in range(2):  # the second with a full queue
        result = term(student, teacher, labels, 20.0)
    assert result.value.shape == ()
    differs = name != "logits" or classes > 1  # of one class every prediction is the same
    assert (result.value > 0) == differs
    result.value.backward()
    reached = [part.grad for part in (student.image, student.text) if part.grad is not None]
    assert (sum(gradient.abs().sum() for gradient in reached) > 0) == differs
    assert all(gradient.isfinite().all() for gradient in reached)
    if result.off_diagonal_mass is not None:
        assert 0 <= result.off_diagonal_mass <= 1
        assert 0 <= result.plan_entropy <= 1


@pytest.mark.parametrize("name", [name for name in TERMS if not name.startswith("sinkhorn ")])
@pytest.mark.parametrize("batch", [1, 4, 9])
def test_zero_at_the_teacher_even_with_duplicates(name, batch, random_features):
    """All but the plain entropic value, which its docstring says."""
    single = random_features(1, 2, seed=2)
    teacher = Features(single.image.repeat(batch, 1), single.text)
    student, term = with_gradient(teacher), build(name)
    for _ in range(2):
        result = term(student, teacher, torch.zeros(batch, dtype=torch.long), 20.0)
    assert result.value.item() == pytest.approx(0, abs=1e-6)
    if name != "promptsrc":  # |x| has no gradient at zero; the divergence has
        result.value.backward()
        for part in (student.image, student.text):
            assert part.grad is None or part.grad.abs().max() < 1e-5


@every_term
def test_text_that_depends_on_the_image_in_no_way_changes_nothing(
    name, random_features, drifted, per_image
):
    teacher = random_features(4, 3, seed=3)
    student = drifted(teacher, 0.2)
    labels = torch.tensor([0, 2, 1, 2])
    expected = build(name)(student, teacher, labels, 20.0)
    result = build(name)(per_image(student), teacher, labels, 20.0)
    torch.testing.assert_close(result.value, expected.value)


@every_term
def test_text_of_each_image_gets_a_gradient(name, random_features, drifted, per_image):
    teacher = random_features(4, 3, seed=3)
    student = with_gradient(per_image(drifted(teacher, 0.2), drift=0.3))
    labels = torch.tensor([0, 2, 1, 2])
    result = Objective(build(name), 1.0)(student, teacher, labels, 20.0)
    result.total.backward()
    assert (student.text.grad.norm(dim=2) > 0).all()  # through the logits at least
    drift = (student.text.detach() - teacher.text).norm(dim=2).mean()
    torch.testing.assert_close(result.text_drift, drift)
    if "image" in name:
        return
    student.text.grad = None
    build(name)(student, teacher, labels, 20.0).value.backward()
    own = student.text.grad[torch.arange(4), labels].norm(dim=1)
    assert (own > 0).sum() >= 3  # a partial plan may leave one out


@every_term
def test_sixteen_bit_features_give_a_full_precision_value(name, random_features, drifted):
    teacher = random_features(4, 3, seed=4)
    student = drifted(teacher, 0.1)
    labels = torch.tensor([0, 1, 2, 2])

    def half(features):
        return Features(features.image.bfloat16(), features.text.bfloat16())

    result = build(name)(half(student), half(teacher), labels, 20.0)
    assert result.value.dtype == torch.float32
    exact = build(name)(
        half(student).at_least_float32(), half(teacher).at_least_float32(), labels, 20.0
    )
    assert torch.equal(result.value, exact.value)


@pytest.mark.parametrize("name", [name for name in TERMS if TERMS[name][0] == "ot"])
def test_names_the_row_that_is_not_finite(name, random_features):
    teacher = random_features(4, 3, seed=5)
    student = Features(teacher.image.clone(), teacher.text.clone())
    student.image[3, 0] = student.text[2, 0] = float("nan")
    term = build(name)
    with pytest.raises(PromptotError, match=r"source row 3 \(of 4\)"):
        term(student, teacher, torch.tensor([0, 1, 1, 2]))
    assert getattr(term.queue, "state_dict", dict)() == {}  # it does not enter the queue
