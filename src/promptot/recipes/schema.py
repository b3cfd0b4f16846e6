"""What a recipe may say: typed, bounded and frozen.

A recipe is data. It names a prompt design, an objective, an average over epochs, a schedule and how
the data are drawn; the builders turn the names into blocks, and nothing else reads a recipe.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from promptot.data.class_names import TemplateMean, check_template
from promptot.recipes.templates import check_templates

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Tokens = Annotated[int, Field(ge=0, le=1024)]
Depth = Annotated[int, Field(ge=1, le=1024)]
Share = Annotated[float, Field(gt=0, le=1)]
Solver = Literal["exact", "sinkhorn", "sinkhorn-divergence", "unbalanced", "partial"]

CACHED_VIEWS = 8
PUBLISHED_STRENGTH = {"none": 0.0, "pointwise": 10.0, "ot": 10.0, "text-cosine": 8.0}
PUBLISHED_STRENGTH |= {"promptsrc": 1.0}
"""λ of each preservation term; one term's λ means nothing to another."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PromptsConfig(_Section):
    """What learns. A branch with 0 tokens is off; `depth` counts the blocks that get own tokens."""

    design: Literal["ivlp", "maple", "cocoop", "linear-probe", "none"] = "ivlp"
    """ivlp: both towers have tokens of their own (CoOp and VPT: one tower has none). maple: the
    vision tokens are linear images of the text tokens. cocoop: text tokens of the first block,
    shifted by each image. linear-probe: no prompts, a linear classifier on frozen features."""
    text_tokens: Tokens = 4
    text_depth: Depth = 12
    vision_tokens: Tokens = 4
    vision_depth: Depth = 12
    init_words: Annotated[str, Field(min_length=1)] | None = "a photo of a"
    """Words whose embeddings start the text context; null starts it from N(0, 0.02²)."""
    class_specific: bool = False
    """One text context per class instead of one for all."""
    cloned_projections: bool = False
    """Of maple: whether the projections of all blocks but the first start as copies of one
    another, as in its reference code."""

    def used_fields(self) -> set[str]:
        """The fields that have an effect, given the others."""
        used = {"design"}
        if self.design in ("none", "linear-probe"):
            return used
        used.add("text_tokens")
        if self.text_tokens:
            used.add("init_words")
            if self.design != "cocoop":
                used.add("text_depth")
        if self.design == "maple" and self.text_depth > 2:
            used.add("cloned_projections")
        if self.design == "ivlp":
            used.add("vision_tokens")
            if self.text_tokens:
                used.add("class_specific")
            if self.vision_tokens:
                used.add("vision_depth")
        return used

    @model_validator(mode="after")
    def _some_branch_is_on(self) -> PromptsConfig:
        if self.design == "ivlp" and self.text_tokens == 0 and self.vision_tokens == 0:
            raise ValueError(
                "both prompts.text_tokens and prompts.vision_tokens are 0, so nothing would learn; "
                "set one of them, or prompts.design to none"
            )
        if self.design in ("maple", "cocoop") and self.text_tokens == 0:
            raise ValueError(
                f"prompts.text_tokens is 0, and everything in design {self.design} starts from "
                "text tokens; set it to 1 or more"
            )
        if self.design in ("maple", "cocoop") and self.class_specific:
            raise ValueError(
                f"design {self.design} has one text context for all classes; "
                "set prompts.class_specific=false, or prompts.design=ivlp"
            )
        return self


class ObjectiveConfig(_Section):
    """Cross-entropy plus `strength` (λ) times a term that holds on to the frozen model."""

    preservation: Literal["none", "pointwise", "ot", "text-cosine", "promptsrc"] = "ot"
    """pointwise and ot compare rows of features; text-cosine (KgCoOp) and promptsrc compare as
    those papers do."""
    strength: NonNegativeFloat = 10.0
    """λ; left out or null, the one that the term was published with. Not used without a term."""
    eta: PositiveFloat = 0.5
    """Scale of the squared distance between rows."""
    rows: Literal["joint", "image", "text", "separate"] = "joint"
    """What is compared: each image's features joined to those of its class's text, one of the two,
    or both, each for itself."""
    solver: Solver = "exact"
    """How the plan of `ot` is found."""
    epsilon: PositiveFloat = 0.05
    """Entropic regularisation of the sinkhorn and unbalanced solvers, relative to the mean cost."""
    marginal_penalty: PositiveFloat = 1.0
    """What leaving the marginals costs the unbalanced solver, relative to the mean cost."""
    mass: Share = 0.9
    """Share of the mass that the partial solver moves."""
    queue: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Rows, of this and of earlier batches, that `ot` moves together; null: this batch's alone."""
    text_weight: NonNegativeFloat = 25.0
    """Of promptsrc: factor on the mean absolute difference of the text features."""
    image_weight: NonNegativeFloat = 10.0
    """Of promptsrc: factor on the mean absolute difference of the image features."""
    logit_weight: NonNegativeFloat = 1.0
    """Of promptsrc: factor on the divergence of the logits."""
    control: Literal["constant", "ramp", "ramp-down", "budget"] = "constant"
    """constant: λ is `strength`. ramp: it grows from 0 to `strength` over the steps; ramp-down: it
    falls to 0. budget: it follows the term, so that the term's mean becomes `budget`."""
    budget: PositiveFloat = 0.05
    """The mean of the term that `control: budget` aims at."""

    def options(self) -> dict[str, Any]:
        """The arguments of the chosen preservation term, and no others.

        Example:
            >>> ObjectiveConfig(preservation="pointwise").options()
            {'eta': 0.5, 'rows': 'joint'}
        """
        chosen = self.used_fields() - {"preservation", "strength", "control", "budget"}
        return {key: getattr(self, key) for key in sorted(chosen)}

    def used_fields(self) -> set[str]:
        """The fields that have an effect, given the others."""
        used = {"preservation"}
        if self.preservation == "none":
            return used
        used |= {"strength", "control"}
        if self.control == "budget":
            used.add("budget")
        if self.preservation == "promptsrc":
            used |= {"text_weight", "image_weight", "logit_weight"}
        if self.preservation in ("pointwise", "ot"):
            used |= {"eta", "rows"}
        if self.preservation == "ot":
            used |= {"solver", "queue"} | _solver_fields(self.solver)
        return used

    @model_validator(mode="before")
    @classmethod
    def _strength_is_the_terms_own(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("strength") is None:
            term = str(values.get("preservation", cls.model_fields["preservation"].default))
            if term in PUBLISHED_STRENGTH:
                return values | {"strength": PUBLISHED_STRENGTH[term]}
            if term in get_args(cls.model_fields["preservation"].annotation):
                raise ValueError(f"'{term}' was published with no λ: give objective.strength")
        return values


class VocabularyConfig(_Section):
    """A second term: the text features of all classes and of anchor words, against the frozen."""

    comparison: Literal["none", "pointwise", "ot"] = "none"
    strength: NonNegativeFloat = 10.0
    """Factor on the term."""
    eta: PositiveFloat = 0.5
    """Scale of the squared distance between two words' features."""
    solver: Solver = "exact"
    """How the plan of `ot` is found."""
    epsilon: PositiveFloat = 0.05
    """As in `objective`."""
    marginal_penalty: PositiveFloat = 1.0
    """As in `objective`."""
    mass: Share = 0.9
    """As in `objective`."""
    words: Annotated[str, Field(min_length=1)] | None = None
    """A text file with one anchor word a line, such as the names of classes to come; null takes
    the list that ships."""
    per_step: PositiveInt | None = 64
    """Anchor words that each step draws; null takes all of them."""

    def options(self) -> dict[str, Any]:
        """The arguments of the chosen comparison, and no others.

        Example:
            >>> VocabularyConfig(comparison="ot").options()
            {'eta': 0.5, 'solver': 'exact'}
        """
        chosen = self.used_fields() - {"comparison", "strength", "words", "per_step"}
        return {key: getattr(self, key) for key in sorted(chosen)}

    def used_fields(self) -> set[str]:
        """The fields that have an effect, given the others."""
        if self.comparison == "none":
            return {"comparison"}
        used = {"comparison", "strength", "eta", "words", "per_step"}
        if self.comparison == "ot":
            used |= {"solver"} | _solver_fields(self.solver)
        return used


class EnsemblingConfig(_Section):
    """An average over epochs of the prompts that each epoch ends with; training does not see it."""

    rule: Literal["none", "gaussian", "uniform"] = "none"
    """none: the last epoch's prompts are kept. uniform: every epoch weighs the same. gaussian: an
    epoch weighs what a normal density gives it (PromptSRC)."""
    mean: PositiveFloat | None = None
    """The epoch that weighs most; null: three quarters of the epochs, as in PromptSRC."""
    sd: PositiveFloat = 1.0
    """Standard deviation in epochs."""

    def used_fields(self) -> set[str]:
        """The fields that have an effect, given the others."""
        return {"rule", "mean", "sd"} if self.rule == "gaussian" else {"rule"}


class OptimConfig(_Section):
    """SGD with a constant warm-up, then a cosine."""

    lr: PositiveFloat = 0.005
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegativeFloat = 5e-4
    epochs: NonNegativeInt = 40
    batch_size: PositiveInt = 4
    drop_last: bool = True
    """Leave out the incomplete batch at the end of an epoch."""
    warmup_epochs: NonNegativeInt = 1
    warmup_lr: PositiveFloat = 1e-4
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What a batch does whose loss or gradient is NaN or infinite: stop the run with the cause, or
    be left out and counted. An interrupted run may be resumed with another choice."""

    def used_fields(self) -> set[str]:
        """The fields that have an effect; to stop is what happens without a word about it."""
        used = set(type(self).model_fields)
        return used - {"on_nonfinite"} if self.on_nonfinite == "stop" else used


class DataConfig(_Section):
    """Which images are learnt from, and what the frozen model reads."""

    shots: PositiveInt | None = 16
    """Images per class; null takes all of them."""
    template: str = "a photo of a {}."
    """The sentence that the frozen model reads of a class, unless the task has one of its own."""
    templates: str | tuple[str, ...] = "one"
    """one: only `template`. imagenet-7, imagenet-60, imagenet-80 or a list of sentences: instead of
    it, the mean of their features."""
    template_mean: TemplateMean = "normalised"
    """normalised: the features of each sentence are L2-normalised before the mean. raw: they are
    averaged as the tower gives them, as PromptSRC's teacher has it. The mean is normalised."""
    smallest_crop: Share = 0.08
    """Smallest share of an image's area that a training crop covers."""
    views: PositiveInt | None = None
    """Augmented views per image that are made once and used in turn; null augments anew every
    epoch."""
    teacher: Literal["online", "cached-views"] = "online"
    """online: the frozen model's features come with the batch: computed for it or, with `views`,
    kept beside the patch tokens. cached-views: only its features of `views` fixed views per image
    (8 unless given) are kept, and the images are augmented again; it takes little memory with any
    backbone. Exact where there are as many views as epochs."""

    @model_validator(mode="before")
    @classmethod
    def _cached_views_are_counted(cls, values: Any) -> Any:
        cached = isinstance(values, dict) and values.get("teacher") == "cached-views"
        if cached and values.get("views") is None:
            return values | {"views": CACHED_VIEWS}
        return values

    @field_validator("templates", mode="before")
    @classmethod
    def _templates_are_known(cls, value: Any) -> str | tuple[str, ...]:
        return check_templates(value)

    @model_validator(mode="after")
    def _template_has_one_place(self) -> DataConfig:
        check_template(self.template)
        return self


class Recipe(_Section):
    """A method: prompts × objective × ensembling × schedule, with the values of its publication."""

    name: Annotated[str, Field(min_length=1)]
    summary: str = ""
    paper: str | None = None
    prompts: PromptsConfig = PromptsConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()
    ensembling: EnsemblingConfig = EnsemblingConfig()
    optim: OptimConfig = OptimConfig()
    data: DataConfig = DataConfig()
    evaluate_epoch: PositiveInt | None = None
    """The epoch (from 1) whose prompts are kept; null keeps the last one's. Training stops there,
    so that an average over epochs is one over these."""

    @property
    def trains(self) -> bool:
        """Whether prompts are trained, step by step."""
        return self.prompts.design not in ("none", "linear-probe") and self.optim.epochs > 0

    @property
    def probes(self) -> bool:
        """Whether a linear classifier is fitted to frozen features instead."""
        return self.prompts.design == "linear-probe"

    def used_fields(self) -> dict[str, set[str]]:
        """The fields that have an effect, by section ("" for those of the recipe itself)."""
        data = {"templates", "template" if self.data.templates == "one" else "template_mean"}
        used = {"": {"name", "summary", "paper"}, "prompts": self.prompts.used_fields()}
        if self.trains:
            used[""].add("evaluate_epoch")
            used["objective"] = self.objective.used_fields()
            used["vocabulary"] = self.vocabulary.used_fields()
            used["ensembling"] = self.ensembling.used_fields()
            used["optim"] = self.optim.used_fields()
            data |= {"shots", "smallest_crop", "views", "teacher"}
        elif self.probes:
            data.add("shots")
        return used | {"data": data}

    @model_validator(mode="after")
    def _sections_agree(self) -> Recipe:
        if self.evaluate_epoch is not None and self.evaluate_epoch > self.optim.epochs:
            raise ValueError(
                f"evaluate_epoch is {self.evaluate_epoch}, but optim.epochs is {self.optim.epochs}"
            )
        specific = "class_specific" in self.prompts.used_fields() and self.prompts.class_specific
        if specific and self.vocabulary.comparison != "none":
            raise ValueError(
                "anchor words have no class-specific context; set prompts.class_specific=false "
                "or vocabulary.comparison=none"
            )
        return self


def _solver_fields(solver: str) -> set[str]:
    """The fields that only this solver has."""
    if solver == "unbalanced":
        return {"epsilon", "marginal_penalty"}
    return {"partial": {"mass"}, "exact": set()}.get(solver, {"epsilon"})
