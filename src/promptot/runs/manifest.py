"""The manifest of a run: what it was made with and what came of it, in `manifest.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from promptot.errors import PromptotError
from promptot.files.owned import kind_of
from promptot.files.reading import Unreadable, read_json
from promptot.files.writing import write_json
from promptot.recipes.schema import ObjectiveConfig, read_objective

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 2**30  # bytes

Text = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    """A part of a manifest; what other versions wrote beside what is known here is kept."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")


class Shot(_Part):
    """An image that was trained on."""

    path: str
    class_name: str
    sha256: str


class LeftOut(_Part):
    """An image that could not be read."""

    path: str
    reason: str


class TrainedIn(_Part):
    """The backbone.

    Attributes:
        name: what it was loaded from.
        weight_hash: see `Backbone.weight_hash`.
        function: what is done with weights and images; `settings` reads it.
        identity: digest of all of it.
    """

    name: Text
    weight_hash: Text
    function: JsonValue = None
    identity: str | None = None

    @property
    def settings(self) -> dict[str, JsonValue]:
        """The function; empty where it is not noted, or not so that this promptot can read it."""
        return self.function if isinstance(self.function, dict) else {}


class TrainedOn(_Part):
    """The task.

    Attributes:
        classes: "all", "base" or "novel".
        class_names: that were learned, in the order of the labels.
        template: one sentence, or several.
        synonyms: further names by class name.
        shots: the training images.
        skipped: images that could not be read.
        tested: class names of each part that was tested.
        labels: what an estimator's user calls the classes, in their order.
    """

    name: Text
    classes: Text
    class_names: Annotated[list[str], Field(min_length=1)]
    template: str | Annotated[list[str], Field(min_length=1)]
    synonyms: dict[str, list[str]] = {}
    shots: list[Shot]
    skipped: list[LeftOut] = []
    tested: dict[str, list[str]] = {}
    labels: list[str | int | float | bool | None] | None = None

    @property
    def first_template(self) -> str:
        return self.template if isinstance(self.template, str) else self.template[0]


class Results(_Part):
    """What came of it: flat accuracies and plan figures beside these.

    Attributes:
        seconds: of training.
    """

    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class MergedRun(_Part):
    """A run that a mean was made of."""

    run: str
    weight: float
    tensors_sha256: str | None = None


class Manifest(_Part):
    """What a run was made with and what came of it.

    Attributes:
        recipe: flat, as `describe` gives it.
        seed: None of a mean of runs.
        merged: the runs that it is the mean of; None of a run that was trained.
        seeds: of these.
        made_with: what a resumed run must have in common; see `read_made_with`.
    """

    recipe: dict[str, Any]
    seed: int | None = None
    backbone: TrainedIn
    task: TrainedOn
    made_with: JsonValue = None
    device: str = ""
    precision: str = ""
    versions: Mapping[str, str | None] = {}
    platform: str = ""
    results: Results = Results()
    seeds: list[int | None] | None = None
    merged: list[MergedRun] | None = None

    @model_validator(mode="after")
    def _has_a_seed(self) -> Manifest:
        if self.seed is None and self.merged is None:
            raise ValueError("it has no seed")
        return self

    @property
    def recipe_name(self) -> str | None:
        """The recipe's; None where the manifest does not say."""
        name = self.recipe.get("name")
        return str(name) if name else None

    @property
    def objective(self) -> ObjectiveConfig:
        """The recipe's objective.

        Raises:
            PromptotError: its values are none that are known.
        """
        own = {k.removeprefix("objective."): v for k, v in self.recipe.items()
               if k.startswith("objective.")}  # fmt: skip
        try:
            return read_objective({"preservation": "none", **own})
        except ValidationError:
            raise _malformed(Path(MANIFEST)) from None

    def training_images(self) -> list[str]:
        """Where its training images were, one of each class first."""
        shots = self.task.shots
        return [*{s.class_name: s.path for s in shots}.values(), *(s.path for s in shots)]

    def change(self, **changed: Any) -> Manifest:
        """The same with other values of some fields; those of `task` may be given as a mapping."""
        if isinstance(changed.get("task"), Mapping):
            changed["task"] = self.task.model_copy(update=changed["task"])
        return self.model_copy(update=changed)

    def as_json(self) -> dict[str, Any]:
        """The content of the file."""
        return self.model_dump(exclude_unset=True)

    def write(self, folder: Path) -> None:
        """Write it into a run folder.

        Raises:
            PromptotError: the file can't be written.
        """
        write_json(folder / MANIFEST, self.as_json())


def find_manifest(folder: Path) -> Manifest | None:
    """The manifest of a run folder; None if there is none, as beside an adapter alone.

    Raises:
        PromptotError: it is damaged: something is missing, or of another kind than `fit` writes.
    """
    path = folder / MANIFEST
    try:
        return Manifest.model_validate(_read(path))
    except Unreadable as error:
        if error.missing:
            return None
        raise PromptotError(f"'{path}' is damaged: {error}.", fix="Train the run again.") from error
    except ValidationError as error:
        where = ".".join(f"{part!s:.40}" for part in error.errors()[0]["loc"])
        raise _malformed(path, where) from None


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run folder.

    Raises:
        PromptotError: as `find_manifest`, or there is none.
    """
    manifest = find_manifest(folder)
    if manifest is None:
        raise PromptotError(
            f"There is no '{MANIFEST}' in '{folder}'.", fix="Give a run folder that `fit` wrote."
        )
    return manifest


def _malformed(path: Path, where: str = "") -> PromptotError:
    """The error for a manifest with something of another kind than `fit` writes at `where`."""
    return PromptotError(
        f"'{path}' is damaged, or an older promptot wrote it"
        + (f" ({where} is not as `fit` writes it)." if where else "."),
        fix="Train the run again.",
    )


def is_manifest(path: Path) -> bool | None:
    """Whether a file is a run's manifest, of any version; None if there is none."""
    if kind_of(path) != "file":
        return None
    try:
        manifest = _read(path)
        return isinstance(manifest["recipe"], dict) and isinstance(manifest["task"]["shots"], list)
    except Unreadable as error:
        return None if error.missing else False
    except (KeyError, TypeError):
        return False


def _read(path: Path) -> Any:
    return read_json(path, LARGEST_MANIFEST)
