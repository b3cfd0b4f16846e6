"""What an adapted model still knows, measured with what its user has: images and words.

No single figure says it. Where labels exist (held-out classes, other drawings) accuracy before and
after does. Where they don't, there are words that have nothing to do with the training: the adapted
model should name the user's images among them as the frozen one does, and should still tell each
word from all others. Features that stay put (cosine to the frozen ones) are the cause of both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from promptot.adaptation.student import Student
from promptot.backbones.tokenizer import tokenize_template
from promptot.data.anchor_words import load_vocabulary
from promptot.errors import PromptotError
from promptot.evaluation.metrics import wilson_interval
from promptot.evaluation.scoring import Scores


@dataclass(frozen=True)
class Share:
    """Some of a number of cases, with the 95 % Wilson interval of their share."""

    count: int
    total: int

    @property
    def value(self) -> float:
        return self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.count, self.total)


@dataclass(frozen=True)
class Cosine:
    """Cosines between adapted and frozen features: 1 is unmoved."""

    mean: float
    lowest: float


MOSTLY_WRONG = 0.5
"""A model is called mostly wrong where the 95 % interval of its accuracy ends below this.

Retention compares with the frozen model's answers. Below one half more of these are wrong than
right, so that keeping them is more a fault than a merit, whatever the number of classes; the whole
interval lies below it, so that few images don't raise the alarm by chance.
"""


@dataclass(frozen=True)
class AnchorWords:
    """What happened to words that are no classes of the task.

    Attributes:
        words: how many.
        text: cosine of their adapted to their frozen features.
        told_apart: words whose adapted feature is nearest to their own frozen one, of all words.
        agreement: images that both models give the same word, all words to choose from; None
            without images.
        frozen_accuracy, adapted_accuracy: images whose own class name wins against all other class
            names and all the words; None without images.
    """

    words: int
    text: Cosine
    told_apart: Share
    agreement: Share | None = None
    frozen_accuracy: Share | None = None
    adapted_accuracy: Share | None = None


@dataclass(frozen=True)
class Retention:
    """How far a model moved from the frozen one, and what that cost.

    Attributes:
        image: cosine of the test images' adapted to their frozen features; None without images.
        text: the same of the class names; None where the text depends on the image, or there is a
            linear head instead of text.
        anchors: None where what was learned serves its own classes only, or where the text depends
            on the image.
        others: accuracies on other drawings (on drawings of other things), for the bundled model.
        frozen: test images that the frozen model gets right, each part's own names to choose from;
            None without images.
    """

    image: Cosine | None = None
    text: Cosine | None = None
    anchors: AnchorWords | None = None
    others: Scores | None = None
    frozen: Share | None = None

    @property
    def mostly_wrong(self) -> bool:
        """Whether the model that it is compared with is mostly wrong on the test images."""
        return self.frozen is not None and self.frozen.interval[1] < MOSTLY_WRONG

    def as_json(self) -> dict[str, float]:
        """Flat figures by name; what was not measured is left out."""
        figures: dict[str, float] = {}
        for name, cosine in (("image", self.image), ("text", self.text)):
            if cosine is not None:
                figures |= {f"{name}_cosine": cosine.mean, f"{name}_cosine_lowest": cosine.lowest}
        if self.anchors is not None:
            a = self.anchors
            figures |= {"anchor_words": a.words, "anchor_text_cosine": a.text.mean}
            figures |= {
                "anchor_text_cosine_lowest": a.text.lowest,
                "anchor_kept": a.told_apart.value,
            }
            if a.agreement and a.frozen_accuracy and a.adapted_accuracy:
                figures["anchor_agreement"] = a.agreement.value
                figures["among_anchors_zero_shot_accuracy"] = a.frozen_accuracy.value
                figures["among_anchors_accuracy"] = a.adapted_accuracy.value
        if self.others is not None:
            figures["other_drawings"] = len(self.others.labels)
            figures["other_drawings_zero_shot_accuracy"] = self.others.teacher_accuracy
            figures["other_drawings_accuracy"] = self.others.student_accuracy
        if self.frozen is not None:
            figures["zero_shot_accuracy"] = self.frozen.value
            figures["zero_shot_mostly_wrong"] = self.mostly_wrong
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in figures.items()}


@torch.no_grad()
def measure_retention(
    model: Student,
    scores: Mapping[str, Scores],
    names: Mapping[str, Sequence[str]],
    words: Sequence[str] | None = None,
    others: Scores | None = None,
) -> Retention:
    """Compare the adapted with the frozen model beyond the classes of the task.

    Args:
        model: adapted.
        scores: of parts of the task's images (such as base and novel), with their features.
        names: class names of each part.
        words: anchor words; by default the list that ships. Names of the task are left out, and
            words that the backbone can't read or that don't fit its texts.
        others: accuracies on other drawings, to be kept with the rest.
    """
    class_names = list(dict.fromkeys(n for part in scores for n in names[part]))
    class_names = class_names or list(model.class_names)
    place = {name: index for index, name in enumerate(class_names)}
    student, teacher, labels = [], [], []
    right_before = 0
    for part, answers in scores.items():
        overlaps = any(set(names[part]) < set(names[other]) for other in scores)
        if answers.student_images is None or answers.teacher_images is None or overlaps:
            continue  # a part of another part: its images are in that one
        student.append(answers.student_images)
        teacher.append(answers.teacher_images)
        labels += [place[names[part][label]] for label in answers.labels.tolist()]
        right_before += int((answers.teacher.argmax(dim=1) == answers.labels).sum())
    images = (torch.cat(student), torch.cat(teacher)) if labels else None  # [N, D] each
    retention = Retention(
        image=_cosine(*images) if images else None,
        others=others,
        frozen=Share(right_before, len(labels)) if labels else None,
    )
    if not model.reads_text:
        return retention

    known = {name.casefold() for name in class_names}
    chosen = load_vocabulary() if words is None else words
    anchors = [word for word in chosen if word.casefold() not in known]
    if not model.serves((*class_names, *anchors)):
        own = model.shared_text()
        text = None if own is None else _cosine(own.cpu(), model.teacher_text.cpu())
        return replace(retention, text=text)
    anchors = _readable(model, anchors)
    everything = model.for_classes([*class_names, *anchors])
    prompted = everything.shared_text()
    if prompted is None:
        return retention
    adapted, frozen = prompted.float().cpu(), everything.teacher_text.float().cpu()  # [C + V, D]
    c = len(class_names)
    retention = replace(retention, text=_cosine(adapted[:c], frozen[:c]))
    if not anchors:
        return retention
    return replace(retention, anchors=_anchor_words(adapted, frozen, c, images, labels))


def _anchor_words(
    adapted: Tensor,
    frozen: Tensor,
    classes: int,
    images: tuple[Tensor, Tensor] | None,
    labels: Sequence[int],
) -> AnchorWords:
    """What happened to the words, and to images [N, D] among them.

    Args:
        adapted, frozen: text features of the classes and then of the words, [C + V, D].
        classes: C.
        images: features of both models, the adapted one first.
        labels: of the images [N], in 0..C-1.
    """
    c = classes
    nearest = (adapted[c:] @ frozen[c:].T).argmax(dim=1)  # [V]
    text = _cosine(adapted[c:], frozen[c:])
    words = AnchorWords(len(nearest), text, _share(nearest == torch.arange(len(nearest))))
    if images is None:
        return words
    right = torch.tensor(labels)
    after, before = images[0] @ adapted.T, images[1] @ frozen.T  # [N, C + V]
    return replace(
        words,
        agreement=_share(after[:, c:].argmax(dim=1) == before[:, c:].argmax(dim=1)),
        frozen_accuracy=_share(before.argmax(dim=1) == right),
        adapted_accuracy=_share(after.argmax(dim=1) == right),
    )


def paired_change(scores: Scores) -> tuple[float, tuple[float, float]]:
    """Adapted minus frozen accuracy, and its 95 % interval over these images, both in −1..1.

    Both models answer the same images, so only those that one of them alone gets right count.

    References:
        A. Agresti, Y. Min, "Simple improved confidence intervals for comparing matched
        proportions", Statistics in Medicine 24 (2005): half an image is added to each cell.
    """
    right = scores.student.argmax(dim=1) == scores.labels
    before = scores.teacher.argmax(dim=1) == scores.labels
    gained, lost = int((right & ~before).sum()), int((before & ~right).sum())
    images = len(scores.labels)
    middle = (gained - lost) / (images + 2)
    spread = 1.96 * math.sqrt((gained + lost + 1) / (images + 2) - middle**2)
    spread /= math.sqrt(images + 2)
    return (gained - lost) / images, (max(middle - spread, -1.0), min(middle + spread, 1.0))


def _cosine(adapted: Tensor, frozen: Tensor) -> Cosine:
    """Of rows that are normalised already."""
    cosines = (adapted.float() * frozen.float()).sum(dim=1).clamp(-1, 1)
    return Cosine(float(cosines.mean()), float(cosines.min()))


def _share(cases: Tensor) -> Share:
    """Of cases [N] that are true."""
    return Share(int(cases.sum()), len(cases))


def _readable(model: Student, names: Sequence[str]) -> list[str]:
    """Those names that fit into both models' texts and are no blank for their tokenizer."""
    try:
        _check_readable(model, names)
    except PromptotError:
        if len(names) == 1:
            return []
        return [name for one in names for name in _readable(model, [one])]
    return list(names)


def _check_readable(model: Student, names: Sequence[str]) -> None:
    """Tokenize names as both models read them; raises as that does."""
    backbone = model.backbone
    tower = backbone.text_tower
    if model.context_tokens:
        backbone.tokenize_names(names, model.context_tokens, model.adaptation.fixed_words)
    templates = (model.template,) if isinstance(model.template, str) else model.template
    for text in templates:
        tokenize_template(backbone.tokenizer, names, text, tower.context_length, tower.starts)
