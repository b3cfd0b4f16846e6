"""What a recipe may say: typed, bounded and frozen.

A recipe is data. It names a prompt design, an objective, an average over epochs, a schedule and how
the data are drawn; the builders turn the names into blocks, and nothing else reads a recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, cast, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import to_jsonable_python

from promptot.data.class_names import TemplateMean, check_template
from promptot.recipes.templates import check_templates

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Tokens = Annotated[int, Field(ge=0, le=1024)]
Depth = Annotated[int, Field(ge=1, le=1024)]
Share = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]

CACHED_VIEWS = 8


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def used_fields(self) -> set[str]:
        """The fields that have an effect, given the others."""
        return set(type(self).model_fields)

    def options(self) -> dict[str, Any]:
        """The arguments of what this section chooses, and no others; see `_ABOUT_IT`."""
        chosen = self.used_fields() - _ABOUT_IT
        return {key: getattr(self, key) for key in sorted(chosen)}


_ABOUT_IT = {
    "preservation", "fit", "comparison", "strength", "control", "budget", "combine", "words",
    "per_step",
}  # fmt: skip
"""Fields of a term that are not arguments of the term itself: its name, what stands beside it, and
what weighs it."""


class NoPromptsConfig(_Section):
    """The frozen model as it is."""

    design: Literal["none"]


class LinearProbeConfig(_Section):
    """No prompts: a linear classifier on frozen image features."""

    design: Literal["linear-probe"]


class _TextPrompts(_Section):
    text_tokens: Tokens = 4
    init_words: Annotated[str, Field(min_length=1)] | None = "a photo of a"
    """Words whose embeddings start the text context; null starts it from N(0, 0.02²)."""
    fill: Literal["none", "zeros"] = "none"
    """none: the words fill the context. zeros: they end it, and what is before them starts at 0."""

    def used_fields(self) -> set[str]:
        """The fields that have an effect, given the others."""
        used = super().used_fields()
        return used - {"fill"} if self.fill == "none" or not self.init_words else used

    @model_validator(mode="after")
    def _text_is_on(self) -> _TextPrompts:
        design: str = getattr(self, "design", "")
        if self.text_tokens == 0 and design != "ivlp":
            raise ValueError(
                f"prompts.text_tokens is 0, and everything in design {design} starts from "
                "text tokens; set it to 1 or more"
            )
        return self


class IVLPConfig(_TextPrompts):
    """Both towers have tokens of their own (CoOp and VPT: one tower has none). A tower with 0
    tokens is off; its depth counts the blocks that get tokens of their own."""

    design: Literal["ivlp"] = "ivlp"
    text_depth: Depth = 12
    vision_tokens: Tokens = 4
    vision_depth: Depth = 12
    class_specific: bool = False
    """One text context per class instead of one for all."""

    def used_fields(self) -> set[str]:
        """The fields that have an effect, given the others."""
        used = super().used_fields()
        if not self.text_tokens:
            used -= {"init_words", "text_depth", "class_specific"}
        return used if self.vision_tokens else used - {"vision_depth"}

    @model_validator(mode="after")
    def _some_tower_is_on(self) -> IVLPConfig:
        if self.text_tokens == 0 and self.vision_tokens == 0:
            raise ValueError(
                "both prompts.text_tokens and prompts.vision_tokens are 0, so nothing would learn; "
                "set one of them, or prompts.design to none"
            )
        return self


class MaPLeConfig(_TextPrompts):
    """The vision tokens are linear images of the text tokens."""

    design: Literal["maple"]
    text_depth: Depth = 12
    cloned_projections: bool = False
    """Whether the projections of all blocks but the first start as copies of one another, as in
    the reference code."""

    def used_fields(self) -> set[str]:
        """The fields that have an effect, given the others."""
        used = super().used_fields()
        return used if self.text_depth > 2 else used - {"cloned_projections"}


class CoCoOpConfig(_TextPrompts):
    """Text tokens of the first block, shifted by each image."""

    design: Literal["cocoop"]


class LoRAConfig(_Section):
    """No prompts: low-rank changes of frozen matrices. They merge into the weights."""

    design: Literal["lora"]
    towers: Literal["both", "text", "image"] = "both"
    targets: Annotated[
        tuple[Literal["q", "k", "v", "o", "fc", "proj"], ...], Field(strict=False, min_length=1)
    ] = ("q", "k", "v")
    """Which matrices of every block: queries, keys, values and output of the attention, and the two
    of the MLP."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 2
    alpha: PositiveFloat = 1.0
    """The factor of a change is alpha / √rank."""
    dropout: Decay = 0.25
    """Share of the entries of its input that a change does not see in a training step."""

    @field_validator("targets")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"targets has a name twice: {', '.join(value)}")
        return value


PromptsConfig = Annotated[
    IVLPConfig | MaPLeConfig | CoCoOpConfig | LoRAConfig | LinearProbeConfig | NoPromptsConfig,
    Field(discriminator="design"),
]
"""What learns."""


class _Objective(_Section):
    fit: Literal["softmax", "sigmoid"] = "softmax"
    """What the logits are fitted by. softmax: the cross-entropy of the classes, of which one is
    right. sigmoid: SigLIP's loss, for each class whether the image shows it; it needs a backbone
    with a logit bias, probabilities need not sum to 1, and none of the classes is a possible
    answer."""

    def used_fields(self) -> set[str]:
        """The fields that have an effect; a softmax is what happens without a word about it."""
        used = super().used_fields()
        return used - {"fit"} if self.fit == "softmax" else used


class NoTermConfig(_Objective):
    """No term: as one whose λ is 0."""

    preservation: Literal["none"]
    strength: ClassVar[float] = 0.0
    control: ClassVar[Literal["constant"]] = "constant"
    budget: ClassVar[float] = 0.05
    combine: ClassVar[Literal["sum"]] = "sum"


class _Term(_Objective):
    strength: NonNegativeFloat
    """λ; left out or null, the one that the term was published with."""
    control: Literal["constant", "ramp", "ramp-down", "budget"] = "constant"
    """constant: λ is `strength`. ramp: it grows from 0 to `strength` over the steps; ramp-down: it
    falls to 0. budget: it follows the term, so that the term's mean becomes `budget`."""
    budget: PositiveFloat = 0.05
    """The mean of the term that `control: budget` aims at."""
    combine: Literal["sum", "project"] = "sum"
    """sum: λ times the term is added to the loss. project: it is not; instead, λ times what would
    raise the term is taken out of the loss's gradient (ProGrad's rule, with any term)."""

    def used_fields(self) -> set[str]:
        """The fields that have an effect, given the others."""
        used = super().used_fields()
        used = used if self.control == "budget" else used - {"budget"}
        return used - {"combine"} if self.combine == "sum" else used

    @model_validator(mode="before")
    @classmethod
    def _no_strength_is_the_published_one(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("strength", 0) is None:
            return {key: value for key, value in values.items() if key != "strength"}
        return values


class _Pairs(_Section):
    eta: PositiveFloat = 0.5
    """Scale of the squared distance between two rows, or two words' features."""


class _Exact(_Pairs):
    solver: Literal["exact"] = "exact"
    """How the plan is found."""


class _Sinkhorn(_Pairs):
    solver: Literal["sinkhorn", "sinkhorn-divergence"]
    epsilon: PositiveFloat = 0.05
    """Entropic regularisation of the sinkhorn and unbalanced solvers, relative to the mean cost."""


class _Unbalanced(_Pairs):
    solver: Literal["unbalanced"]
    epsilon: PositiveFloat = 0.05
    marginal_penalty: PositiveFloat = 1.0
    """What leaving the marginals costs the unbalanced solver, relative to the mean cost."""


class _Partial(_Pairs):
    solver: Literal["partial"]
    mass: Share = 0.9
    """Share of the mass that the partial solver moves."""


class _RowsTerm(_Term):
    strength: NonNegativeFloat = 10.0
    rows: Literal["joint", "image", "text", "separate"] = "joint"
    """What is compared: each image's features joined to those of its class's text, one of the two,
    or both, each for itself."""


class PointwiseConfig(_Pairs, _RowsTerm):
    """Rows of features, pair by pair."""

    preservation: Literal["pointwise"]


class _OTTerm(_RowsTerm):
    preservation: Literal["ot"] = "ot"
    queue: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Rows, of this and of earlier batches, that are moved together; null: this batch's alone."""


class ExactOTConfig(_Exact, _OTTerm):
    """Rows of features by an exact transport plan: Prompt-OT as published."""


class SinkhornOTConfig(_Sinkhorn, _OTTerm):
    """Rows of features by an entropic plan, plain or debiased."""


class UnbalancedOTConfig(_Unbalanced, _OTTerm):
    """Rows of features by a plan whose marginals may be left at a price."""


class PartialOTConfig(_Partial, _OTTerm):
    """Rows of features by a plan that moves a share of the mass."""


class TextCosineConfig(_Term):
    """KgCoOp's term."""

    preservation: Literal["text-cosine"]
    strength: NonNegativeFloat = 8.0


class LogitsConfig(_Term):
    """The divergence of the predictions: ProGrad's general direction."""

    preservation: Literal["logits"]
    strength: NonNegativeFloat = 1.0


class PromptSRCConfig(_Term):
    """PromptSRC's three terms."""

    preservation: Literal["promptsrc"]
    strength: NonNegativeFloat = 1.0
    text_weight: NonNegativeFloat = 25.0
    """Factor on the mean absolute difference of the text features."""
    image_weight: NonNegativeFloat = 10.0
    """Factor on the mean absolute difference of the image features."""
    logit_weight: NonNegativeFloat = 1.0
    """Factor on the divergence of the logits."""


OTConfig = Annotated[
    ExactOTConfig | SinkhornOTConfig | UnbalancedOTConfig | PartialOTConfig,
    Field(discriminator="solver"),
]
ObjectiveConfig = Annotated[
    NoTermConfig | PointwiseConfig | OTConfig | TextCosineConfig | LogitsConfig | PromptSRCConfig,
    Field(discriminator="preservation"),
]
"""What fits the logits, plus `strength` (λ) times a term that holds on to the frozen model."""


class NoVocabularyConfig(_Section):
    """No second term."""

    comparison: Literal["none"] = "none"
    strength: ClassVar[float] = 0.0
    words: ClassVar[None] = None
    per_step: ClassVar[None] = None


class _VocabularyTerm(_Section):
    strength: NonNegativeFloat = 10.0
    """Factor on the term."""
    words: Annotated[str, Field(min_length=1)] | None = None
    """A text file with one anchor word a line, such as the names of classes to come; null takes
    the list that ships."""
    per_step: PositiveInt | None = 64
    """Anchor words that each step draws; null takes all of them."""


class PointwiseVocabularyConfig(_Pairs, _VocabularyTerm):
    """Words, pair by pair."""

    comparison: Literal["pointwise"]


class _OTVocabulary(_VocabularyTerm):
    comparison: Literal["ot"]


class ExactVocabularyConfig(_Exact, _OTVocabulary):
    """Words by an exact transport plan."""


class SinkhornVocabularyConfig(_Sinkhorn, _OTVocabulary):
    """Words by an entropic plan, plain or debiased."""


class UnbalancedVocabularyConfig(_Unbalanced, _OTVocabulary):
    """Words by a plan whose marginals may be left at a price."""


class PartialVocabularyConfig(_Partial, _OTVocabulary):
    """Words by a plan that moves a share of the mass."""


OTVocabularyConfig = Annotated[
    ExactVocabularyConfig
    | SinkhornVocabularyConfig
    | UnbalancedVocabularyConfig
    | PartialVocabularyConfig,
    Field(discriminator="solver"),
]
VocabularyConfig = Annotated[
    NoVocabularyConfig | PointwiseVocabularyConfig | OTVocabularyConfig,
    Field(discriminator="comparison"),
]
"""A second term: the text features of all classes and of anchor words, against the frozen."""


class NoEnsemblingConfig(_Section):
    """The last epoch's prompts are kept."""

    rule: Literal["none"] = "none"


class UniformEnsemblingConfig(_Section):
    """Every epoch weighs the same."""

    rule: Literal["uniform"]


class GaussianEnsemblingConfig(_Section):
    """An epoch weighs what a normal density gives it (PromptSRC)."""

    rule: Literal["gaussian"]
    mean: PositiveFloat | None = None
    """The epoch that weighs most; null: three quarters of the epochs, as in PromptSRC."""
    sd: PositiveFloat = 1.0
    """Standard deviation in epochs."""


EnsemblingConfig = Annotated[
    NoEnsemblingConfig | UniformEnsemblingConfig | GaussianEnsemblingConfig,
    Field(discriminator="rule"),
]
"""An average over epochs of the prompts that each epoch ends with; training does not see it."""


class OptimConfig(_Section):
    """How parameters change: an optimiser, and its learning rate over the run."""

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """sgd: with `momentum`. adam: weight decay is part of the gradient. adamw: it is not."""
    lr: PositiveFloat = 0.005
    momentum: Decay = 0.9
    betas: Annotated[tuple[Decay, Decay], Field(strict=False)] = (0.9, 0.999)
    """Of adam and adamw: decay of the means of the gradient and of its square."""
    eps: PositiveFloat = 1e-8
    """Of adam and adamw: what the root of that mean is never below."""
    weight_decay: NonNegativeFloat = 5e-4
    epochs: NonNegativeInt = 40
    batch_size: PositiveInt = 4
    drop_last: bool = True
    """Leave out the incomplete batch at the end of an epoch."""
    warmup_epochs: NonNegativeInt = 1
    warmup_lr: PositiveFloat = 1e-4
    schedule: Literal["epochs", "steps"] = "epochs"
    """What the cosine goes by after the warm-up; the warm-up's epochs count in both."""
    min_lr: NonNegativeFloat = 0.0
    """Where the cosine ends."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What a batch does whose loss or gradient is NaN or infinite: stop the run with the cause, or
    be left out and counted. An interrupted run may be resumed with another choice."""

    def used_fields(self) -> set[str]:
        """The fields that have an effect; to stop is what happens without a word about it."""
        used = set(type(self).model_fields)
        unsaid = {"optimizer": "sgd", "schedule": "epochs", "min_lr": 0, "on_nonfinite": "stop"}
        used -= {name for name, usual in unsaid.items() if getattr(self, name) == usual}
        return used - ({"betas", "eps"} if self.optimizer == "sgd" else {"momentum"})


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
    decode: Literal["each-time", "cached"] = "each-time"
    """each-time: a training image is read and decoded whenever it is needed. cached: once, as far
    as memory goes; crops of the same draws are made on the device, a level or two of 255 off."""

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
    prompts: PromptsConfig = IVLPConfig()
    objective: ObjectiveConfig = ExactOTConfig()
    vocabulary: VocabularyConfig = NoVocabularyConfig()
    ensembling: EnsemblingConfig = NoEnsemblingConfig()
    optim: OptimConfig = OptimConfig()
    data: DataConfig = DataConfig()
    evaluate_epoch: PositiveInt | None = None
    """The epoch (from 1) whose prompts are kept; null keeps the last one's. Training stops there,
    so that an average over epochs is one over these."""

    _unused: dict[str, dict[str, Any]] = PrivateAttr(default_factory=dict)
    """What was given by section for other choices than its own."""

    def as_given(self, mode: Literal["python", "json"] = "python") -> dict[str, Any]:
        """The values by section, those that have no effect included."""
        values = self.model_dump(mode=mode)
        for section, unused in self._unused.items():
            own = to_jsonable_python(unused) if mode == "json" else unused
            values[section] = {**own, **values[section]}
        return values

    @property
    def trains(self) -> bool:
        """Whether prompts are trained, step by step."""
        return self.prompts.design not in ("none", "linear-probe") and self.optim.epochs > 0

    @property
    def probes(self) -> bool:
        """Whether a linear classifier is fitted to frozen features instead."""
        return self.prompts.design == "linear-probe"

    def fields_in_use(self) -> dict[str, set[str]]:
        """The fields that have an effect, by section ("" for those of the recipe itself)."""
        data = {"templates", "template" if self.data.templates == "one" else "template_mean"}
        used = {"": {"name", "summary", "paper"}, "prompts": self.prompts.used_fields()}
        if self.objective.fit != "softmax":  # probabilities are other ones, also of a frozen model
            used["objective"] = {"fit"}
        if self.trains:
            used[""].add("evaluate_epoch")
            used["objective"] = self.objective.used_fields()
            used["vocabulary"] = self.vocabulary.used_fields()
            used["ensembling"] = self.ensembling.used_fields()
            used["optim"] = self.optim.used_fields()
            data |= {"shots", "smallest_crop", "views", "teacher"}
            if self.data.decode != "each-time":  # pixels are other ones by a level
                data.add("decode")
        elif self.probes:
            data.add("shots")
        return used | {"data": data}

    @model_validator(mode="wrap")
    @classmethod
    def _sections_choose(cls, values: Any, handler: ModelWrapValidatorHandler[Recipe]) -> Recipe:
        """Each section as its choice has it.

        A value that another choice would use is checked, and has no effect: who overrides the
        choice of a file need not know what the file says of the old one.
        """
        if not isinstance(values, Mapping):
            return handler(values)
        chosen, unused = dict(values), {}
        for name, default in DEFAULT_CHOICES.items():
            if isinstance(values.get(name), Mapping):
                chosen[name], unused[name] = _as_chosen(name, {**default, **values[name]})
        recipe = handler(chosen)
        recipe._unused = {name: own for name, own in unused.items() if own}
        return recipe

    @model_validator(mode="after")
    def _sections_agree(self) -> Recipe:
        if self.evaluate_epoch is not None and self.evaluate_epoch > self.optim.epochs:
            raise ValueError(
                f"evaluate_epoch is {self.evaluate_epoch}, but optim.epochs is {self.optim.epochs}"
            )
        if self.probes and self.objective.fit == "sigmoid":
            raise ValueError(
                "a linear probe is fitted by multinomial logistic regression, which is a softmax; "
                "set objective.fit=softmax, or another prompts.design"
            )
        prompts = self.prompts
        specific = isinstance(prompts, IVLPConfig) and bool(
            prompts.class_specific and prompts.text_tokens
        )
        if specific and self.vocabulary.comparison != "none":
            raise ValueError(
                "anchor words have no class-specific context; set prompts.class_specific=false "
                "or vocabulary.comparison=none"
            )
        return self


DEFAULT_CHOICES: dict[str, dict[str, str]] = {
    "prompts": {"design": "ivlp"},
    "objective": {"preservation": "ot", "solver": "exact"},
    "vocabulary": {"comparison": "none", "solver": "exact"},
    "ensembling": {"rule": "none"},
}
"""What a section is that does not say it, by the fields that tell its kinds apart."""


@cache
def kinds_of(section: str) -> tuple[type[_Section], ...]:
    """The models of a recipe's section, one for each choice.

    Example:
        >>> [kind.__name__ for kind in kinds_of("ensembling")]
        ['NoEnsemblingConfig', 'UniformEnsemblingConfig', 'GaussianEnsemblingConfig']
    """
    return tuple(_kinds(Recipe.model_fields[section].annotation))


def _kinds(annotation: Any) -> Iterator[type[_Section]]:
    if get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for choice in get_args(annotation):
            yield from _kinds(choice)
    elif isinstance(annotation, type) and issubclass(annotation, _Section):
        yield annotation


def _as_chosen(section: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of a section that its choice has, and those of other choices, checked.

    Raises:
        ValidationError: a value that another choice has would not be allowed there.
    """
    kinds = kinds_of(section)
    fitting = [kind for kind in kinds if _is_chosen(kind, section, values)]
    if len(fitting) != 1:  # an unknown choice: pydantic will say which there are
        return dict(values), {}
    own = fitting[0].model_fields
    if values.get("class_specific") is True and fitting[0] in (MaPLeConfig, CoCoOpConfig):
        raise ValueError(
            f"design {values['design']} has one text context for all classes; "
            "set prompts.class_specific=false, or prompts.design=ivlp"
        )
    unused = {}
    for key, value in values.items():
        others = [kind for kind in kinds if key in kind.model_fields]
        if key not in own and others:
            unused[key] = _check_alone(others, section, key, value)
    chosen = {key: value for key, value in values.items() if key not in unused}
    return chosen, {k: v for k, v in unused.items() if v != DEFAULT_CHOICES[section].get(k)}


def _check_alone(kinds: Sequence[type[_Section]], section: str, key: str, value: Any) -> Any:
    """A value as one of these kinds of the section has it, where none of them is chosen."""
    for last, kind in enumerate(kinds, start=1 - len(kinds)):
        checked = kind.model_construct()
        try:
            kind.__pydantic_validator__.validate_assignment(checked, key, value)
            return getattr(checked, key)
        except ValidationError as error:
            if last == 0:
                lines = [{**line, "loc": (section, *line["loc"])} for line in error.errors()]
                raise ValidationError.from_exception_data(error.title, cast("Any", lines)) from None
    return value


def _is_chosen(kind: type[_Section], section: str, values: Mapping[str, Any]) -> bool:
    tags = [tag for tag in DEFAULT_CHOICES[section] if tag in kind.model_fields]
    return all(values[tag] in get_args(kind.model_fields[tag].annotation) for tag in tags)


def _published_strengths() -> dict[str, float]:
    strengths = {}
    for kind in kinds_of("objective"):
        (term,) = get_args(kind.model_fields["preservation"].annotation)
        has_one = "strength" in kind.model_fields
        strengths[term] = kind.model_fields["strength"].default if has_one else 0.0
    return strengths


def read_objective(values: Mapping[str, Any]) -> ObjectiveConfig:
    """The objective that a recipe with this section has.

    Raises:
        ValidationError: a value is not allowed.
    """
    return Recipe.model_validate({"name": "objective", "objective": values}).objective


PUBLISHED_STRENGTH = _published_strengths()
"""λ of each preservation term; one term's λ means nothing to another."""


def complete_values(recipe: Recipe) -> dict[str, Any]:
    """Every value of a recipe as JSON has them, those of other choices by their defaults.

    Keys of cells and of runs are hashes of these since before a section had kinds; they stay.

    Example:
        >>> complete_values(Recipe(name="mine"))["ensembling"]
        {'rule': 'none', 'mean': None, 'sd': 1.0}
    """
    values = recipe.as_given(mode="json")
    for section, later in _LATER.items():
        for key, usual in later.items():
            if values[section].get(key) == usual:
                del values[section][key]
    for section in DEFAULT_CHOICES:
        defaults: dict[str, Any] = {}
        if values[section].get("preservation") == "none":
            defaults["strength"] = 0.0
        for kind in kinds_of(section):
            for key, field in kind.model_fields.items():
                if not field.is_required() and key not in _LATER.get(section, ()):
                    defaults.setdefault(key, field.default)
        values[section] = {**defaults, **values[section]}
    return values


_LATER: dict[str, dict[str, Any]] = {
    "prompts": {
        "fill": "none", "towers": "both", "targets": ["q", "k", "v"], "rank": 2, "alpha": 1.0,
        "dropout": 0.25,
    },
    "objective": {"fit": "softmax", "combine": "sum"},
    "optim": {
        "optimizer": "sgd", "betas": [0.9, 0.999], "eps": 1e-8, "schedule": "epochs", "min_lr": 0.0
    },
    "data": {"decode": "each-time"},
}  # fmt: skip
"""What there was before there was a choice, by section: left out of what keys are made of."""
