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

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from promptot.data.readers.given_paths import place_of
from promptot.errors import PromptotError
from promptot.files.reading import Unreadable, read_yaml


class Description(BaseModel):
    """What a description may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str | dict[str, str]
    """A place, or places by split (train, validation, test)."""
    name: Annotated[str, Field(min_length=1)] | None = None
    template: str | None = None
    names: str | dict[str, str | list[str]] | None = None
    columns: dict[str, str] | None = None
    domain: str | None = None
    """Of a table with several domains, the one to take."""
    keep_same_names: bool = False
    """See `load_task`."""


def read_description(path: Path) -> Description:
    """Read a description.

    Raises:
        PromptotError: it can't be read, or says something else than `Description` has.
    """
    try:
        return Description.model_validate(read_yaml(path, as_text=True))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(f"{part!s:.40}" for part in first["loc"]) or "the file"
        problem = f"{where}: {first['msg']}"
    except Unreadable as error:
        problem = str(error)
    raise PromptotError(
        f"The description '{path}' can't be used: {problem}.",
        fix=f"Its keys are {', '.join(Description.model_fields)}; 'data' says where images are.",
    )


def beside(path: Path, place: str) -> str:
    """A place as a description means it: relative to itself, unless it is bundled."""
    return place if place.startswith("bundled:") else place_of(path.parent, place)
