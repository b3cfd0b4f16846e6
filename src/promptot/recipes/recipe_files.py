"""Reading recipes: shipped ones by name, own ones from a file, single values from overrides."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from promptot.errors import PromptotError, nearest
from promptot.files.reading import Unreadable, brief, read_text
from promptot.files.yaml_text import parse_yaml
from promptot.recipes.schema import DEFAULT_CHOICES, PUBLISHED_STRENGTH, Recipe, kinds_of

_SHIPPED = files("promptot.recipes")
LARGEST_RECIPE = 2**20  # bytes
Overrides = Sequence[str] | Mapping[str, Any]
"""Values that replace a recipe's: `section.key=value` each, or mappings, nested or flat."""
SHORTHANDS = {
    "prompts": "prompts.design",
    "objective": "objective.preservation",
    "vocabulary": "vocabulary.comparison",
    "ensembling": "ensembling.rule",
}
"""What an override of a whole section sets: the choice that the section is about."""


def list_recipes() -> list[str]:
    """The names of the recipes that ship with promptot.

    Example:
        >>> "prompt-ot" in list_recipes()
        True
    """
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in _SHIPPED.iterdir()
        if entry.name.endswith(".yaml")
    )


def load_recipe(name_or_path: str | Path | Recipe, overrides: Overrides = ()) -> Recipe:
    """Load and check a recipe.

    Args:
        name_or_path: a shipped recipe's name, or a YAML file of the same form (what it leaves out
            takes the default; its name is the file's unless it gives one); or a loaded one, to
            replace values of it.
        overrides: values that replace single keys, as nested mappings (`{"optim": {"lr": 0.002}}`)
            or each `section.key=value`; the value is read as
            YAML, so `null`, `true`, `3` and `1e-4` mean what they do there. `objective=ot` is short
            for `objective.preservation=ot`; so are `prompts=`, `vocabulary=` and `ensembling=`
            (see `SHORTHANDS`). Another preservation term brings its own published strength, unless
            an override sets that too.

    Raises:
        PromptotError: the recipe or a key is unknown, or a value is not allowed.

    Example:
        >>> load_recipe("prompt-ot", ["optim.lr=0.002", "data.shots=null"]).optim.lr
        0.002
        >>> load_recipe("maple", ["objective=ot"]).objective.strength
        10.0
    """
    if isinstance(name_or_path, Recipe):
        values, name_or_path = name_or_path.as_given(), name_or_path.name
    else:
        values = _read(name_or_path)
    parsed = [_split(override) for override in as_overrides(overrides)]
    for key, value in sorted(parsed, key=lambda pair: pair[0] != "objective.preservation"):
        _apply(values, key, value)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise _explain(error, str(name_or_path)) from None


def as_overrides(overrides: Overrides) -> list[str]:
    """Overrides as `section.key=value`, from the same or from mappings, nested or flat.

    Raises:
        PromptotError: a value is nothing that a recipe could hold.

    Example:
        >>> as_overrides({"optim": {"lr": 0.002}, "data.shots": None, "objective": "ot"})
        ['optim.lr=0.002', 'data.shots=null', 'objective="ot"']
    """
    if not isinstance(overrides, Mapping):
        return list(overrides)
    found: list[str] = []
    for key, value in overrides.items():
        if isinstance(value, Mapping):
            found += as_overrides({f"{key}.{inner}": v for inner, v in value.items()})
            continue
        try:
            plain = value.item() if hasattr(value, "item") else value  # a number of NumPy's
            found.append(f"{key}={json.dumps(plain, ensure_ascii=False, allow_nan=False)}")
        except (TypeError, ValueError):
            raise PromptotError(
                f"The value of '{key}' is {brief(value)}.", fix="Give a number, a text or None."
            ) from None
    return found


def describe(recipe: Recipe) -> dict[str, Any]:
    """The values that have an effect, flat, by the keys that overrides use.

    What a recipe switches off (λ when nothing is preserved, the schedule when nothing is trained)
    is left out.

    Example:
        >>> describe(load_recipe("ivlp"))["optim.lr"]
        0.0025
    """
    used = recipe.fields_in_use()
    shown = {}
    for key in recipe_keys():
        section, _, field = key.rpartition(".")
        if field in used.get(section, ()):
            shown[key] = getattr(getattr(recipe, section) if section else recipe, field)
    return shown


def is_recipe(name: str) -> bool:
    """Whether a shipped recipe has this name, or a file lies at this path."""
    try:
        return name in list_recipes() or Path(name).is_file()
    except (OSError, ValueError):  # too long for a path, for one
        return False


def recipe_keys() -> list[str]:
    """Every key that an override may set, in the order of the schema."""
    keys: dict[str, None] = {}
    for name in Recipe.model_fields:
        kinds = kinds_of(name)
        choice = list(DEFAULT_CHOICES.get(name, ()))[:1]
        fields = [*choice, *(field for kind in kinds for field in kind.model_fields)]
        keys |= dict.fromkeys([f"{name}.{field}" for field in fields] or [name])
    return list(keys)


def _read(name_or_path: str | Path) -> dict[str, Any]:
    name = str(name_or_path)
    if name in list_recipes():
        return _parse((_SHIPPED / f"{name}.yaml").read_text(encoding="utf-8"), name)
    path = Path(name_or_path)
    if path.suffix.lower() not in {".yaml", ".yml"} and not is_recipe(name):
        raise PromptotError(f"No recipe '{name}'.", fix=nearest(name, list_recipes()))
    try:
        text = read_text(path, LARGEST_RECIPE)
    except Unreadable as error:
        raise PromptotError(
            f"Can't read the recipe '{path}': {error}.",
            fix=f"Give a YAML file, or one of: {', '.join(list_recipes())}.",
        ) from None
    given = {key: value for key, value in _parse(text, str(path)).items() if value is not None}
    return {"name": path.stem} | given  # an empty section takes its defaults


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        values = parse_yaml(text, exponents=True)
    except Unreadable as error:
        raise PromptotError(
            f"The recipe '{source}' is not valid YAML: {error}.",
            fix="Check its indentation and colons.",
        ) from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise PromptotError(
            f"The recipe '{source}' does not hold keys and values.",
            fix=f"Start from a shipped one; the keys are: {', '.join(recipe_keys())}.",
        )
    return values


def _split(override: str) -> tuple[str, Any]:
    """The full key and the value of one `section.key=value`."""
    key, equals, text = override.partition("=")
    key, text = key.strip(), text.strip()
    if not equals or not key or not text:
        raise PromptotError(
            f"The override {brief(override)} is not of the form key=value.",
            fix="For example optim.lr=0.002; write null for 'none'.",
        )
    key = SHORTHANDS.get(key, key)
    if key not in recipe_keys():
        raise _unknown(key)
    return key, _scalar(text)


def _apply(values: dict[str, Any], key: str, value: Any) -> None:
    """Set one key in the nested `values`."""
    section, _, field = key.rpartition(".")
    target = values
    if section:
        # A section that is not a mapping stays as it is, for the validation to report.
        target = values.setdefault(section, {})
        if not isinstance(target, dict):
            return
    if key == "objective.preservation":
        before = target.get(field, DEFAULT_CHOICES[section][field])
        published = [PUBLISHED_STRENGTH.get(str(term)) for term in (before, value)]
        if before != value and (None in published or published[0] != published[1]):
            target.pop("strength", None)
    target[field] = value


def _scalar(text: str) -> Any:
    """Read a value as YAML; all but numbers, booleans, null, lists of texts and quotes is text."""
    try:
        value = parse_yaml(text, exponents=True)
    except Unreadable:
        return text
    quoted = isinstance(value, str) and text[0] in "'\""
    listed = isinstance(value, list) and all(isinstance(item, str) for item in value)
    plain = value is None or isinstance(value, bool | int | float)
    return value if quoted or listed or plain else text


def _unknown(key: str) -> PromptotError:
    known = recipe_keys()
    same_section = [name for name in known if name.startswith(f"{key}.")]
    if same_section:
        return PromptotError(
            f"'{key}' is a section of the recipe, not a key.",
            fix=f"Its keys: {', '.join(same_section)}.",
        )
    section, _, field = key.rpartition(".")
    same_field = [name for name in known if name.rpartition(".")[2] == field]
    same_section = [name for name in known if name.startswith(f"{section}.")]
    if same_section:
        # By the last part alone: the section in front would make every pair look alike.
        close = difflib.get_close_matches(field, [name.rpartition(".")[2] for name in same_section])
        same_field = same_field or [f"{section}.{name}" for name in close]
    if same_field:
        fix = f"Did you mean '{same_field[0]}'?"
    elif same_section:
        fix = f"Valid: {', '.join(same_section)}."
    else:
        fix = nearest(key, known)
    return PromptotError(f"Unknown recipe key '{key:.80}'.", fix=fix)


def _explain(error: ValidationError, source: str) -> PromptotError:
    """One readable sentence from pydantic's first complaint."""
    first = error.errors(include_url=False)[0]
    key = _key_of(first["loc"])
    complaint = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return _unknown(key)
    if first["type"] == "value_error":
        return PromptotError(f"The recipe '{source}' can't work: {complaint}.")
    if first["type"] == "union_tag_invalid":
        context = first["ctx"]
        choice = context["discriminator"].strip("'")
        return PromptotError(
            f"The value of '{key}.{choice}' is '{context['tag']:.80}'; "
            f"it should be one of {context['expected_tags']}."
        )
    if first["type"] == "model_type":
        complaint = "it should hold keys and values"
    complaint = complaint.replace("Input should", "it should").replace("String should", "it should")
    return PromptotError(f"The value of '{key}' is {brief(first['input'])}; {complaint}.")


def _key_of(place: Sequence[str | int]) -> str:
    """The key that pydantic's place of an error means: without the kinds that it went through."""
    names = [str(part) for part in place]
    return ".".join([*names[:1], *names[-1:]] if len(names) > 2 else names)
