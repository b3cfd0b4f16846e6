"""A task described in a small YAML file: where its images are, how its classes are named.

```yaml
data: flowers.csv            # anything that `load_task` takes, relative to this file
template: "a photo of a {}, a type of flower."
names: names.json            # or the mapping itself
columns: {image: file, label: species}
```
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from promptot.errors import PromptotError


class Description(BaseModel):
    """What a description may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str | dict[str, str]
    """A place, or places by split (train, validation, test)."""
    name: Annotated[str, Field(min_length=1)] | None = None
    template: str | None = None
    names: str | dict[str | int, str | list[str]] | None = None
    columns: dict[str, str] | None = None
    domain: str | None = None
    """Of a table with several domains, the one to take."""


def read_description(path: Path) -> Description:
    """Read a description.

    Raises:
        PromptotError: it can't be read, or says something else than `Description` has.
    """
    try:
        return Description.model_validate(yaml.safe_load(path.read_text(encoding="utf-8-sig")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        problem = f"{where}: {first['msg']}"
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = str(error)
    raise PromptotError(
        f"The description '{path}' can't be used: {problem}.",
        fix=f"Its keys are {', '.join(Description.model_fields)}; 'data' says where images are.",
    )


def beside(path: Path, place: str) -> str:
    """A place as a description means it: relative to itself, unless it is bundled."""
    return place if place.startswith("bundled:") else str(path.parent / place)
