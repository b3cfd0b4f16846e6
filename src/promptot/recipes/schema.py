"""What a recipe may say: typed, bounded and frozen.

A recipe is data. It names a prompt design, an objective, a schedule and how the data are drawn; the
builders turn the names into blocks, and nothing else reads a recipe.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from promptot.tasks.names import check_template

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Tokens = Annotated[int, Field(ge=0, le=1024)]
Depth = Annotated[int, Field(ge=1, le=1024)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PromptsConfig(_Section):
    """What learns. A branch with 0 tokens is off; `depth` counts the blocks that get own tokens."""

    design: Literal["ivlp", "none"] = "ivlp"
    text_tokens: Tokens = 4
    text_depth: Depth = 12
    vision_tokens: Tokens = 4
    vision_depth: Depth = 12
    init_words: Annotated[str, Field(min_length=1)] | None = "a photo of a"
    """Words whose embeddings start the text context; null starts it from N(0, 0.02²)."""
    class_specific: bool = False
    """One text context per class instead of one for all."""

    @model_validator(mode="after")
    def _some_branch_is_on(self) -> PromptsConfig:
        if self.design != "none" and self.text_tokens == 0 and self.vision_tokens == 0:
            raise ValueError(
                "both prompts.text_tokens and prompts.vision_tokens are 0, so nothing would learn; "
                "set one of them, or prompts.design to none"
            )
        return self


class ObjectiveConfig(_Section):
    """Cross-entropy plus `strength` (λ) times a term that holds on to the frozen model."""

    preservation: Literal["none", "pointwise", "ot"] = "ot"
    strength: NonNegativeFloat = 10.0
    """λ; not used when preservation is none."""
    eta: PositiveFloat = 0.5
    """Scale of the squared distance between joint image-and-text rows."""
    solver: Literal["exact", "sinkhorn", "sinkhorn-divergence"] = "exact"
    """How the plan of `ot` is found."""
    epsilon: PositiveFloat = 0.05
    """Entropic regularisation of the sinkhorn solvers, relative to the mean cost."""

    def options(self) -> dict[str, Any]:
        """The arguments of the chosen preservation term, and no others.

        Example:
            >>> ObjectiveConfig(preservation="pointwise").options()
            {'eta': 0.5}
        """
        chosen = self.used_fields() - {"preservation", "strength"}
        return {key: getattr(self, key) for key in sorted(chosen)}

    def used_fields(self) -> set[str]:
        """The fields that have an effect, given the others."""
        used = {"preservation"}
        if self.preservation != "none":
            used |= {"strength", "eta"}
        if self.preservation == "ot":
            used.add("solver")
            if self.solver != "exact":
                used.add("epsilon")
        return used


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


class DataConfig(_Section):
    """Which images are learnt from, and the sentence the frozen model reads."""

    shots: PositiveInt | None = 16
    """Images per class; null takes all of them."""
    template: str = "a photo of a {}."
    smallest_crop: Annotated[float, Field(gt=0, le=1)] = 0.08
    """Smallest share of an image's area that a training crop covers."""
    views: PositiveInt | None = None
    """Augmented views per image that are made once and used in turn; null augments anew every
    epoch."""

    @model_validator(mode="after")
    def _template_has_one_place(self) -> DataConfig:
        check_template(self.template)
        return self


class Recipe(_Section):
    """A method: prompts × objective × schedule, with the values it was published with."""

    name: Annotated[str, Field(min_length=1)]
    summary: str = ""
    paper: str | None = None
    prompts: PromptsConfig = PromptsConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    data: DataConfig = DataConfig()
    evaluate_epoch: PositiveInt | None = None
    """The epoch (from 1) whose prompts are kept; null keeps the last one's."""

    @property
    def trains(self) -> bool:
        """Whether there is anything to learn."""
        return self.prompts.design != "none" and self.optim.epochs > 0

    @model_validator(mode="after")
    def _sections_agree(self) -> Recipe:
        if self.evaluate_epoch is not None and self.evaluate_epoch > self.optim.epochs:
            raise ValueError(
                f"evaluate_epoch is {self.evaluate_epoch}, but optim.epochs is {self.optim.epochs}"
            )
        return self
