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

from promptot.data.readers.relative_paths import place_of
from promptot.files.reading import Unreadable, reading_errors
from promptot.files.yaml_text import read_yaml


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
    """Read a description; places in it are from where the description lies.

    Raises:
        PromptotError: it can't be read, or says something else than `Description` has.
    """
    keys = ", ".join(Description.model_fields)
    fix = f"Its keys are {keys}; 'data' says where images are."
    with reading_errors(f"The description '{path}' can't be used", fix):
        try:
            described = Description.model_validate(read_yaml(path, as_text=True))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(f"{part!s:.40}" for part in first["loc"]) or "the file"
            raise Unreadable(f"{where}: {first['msg']}") from None
    data, names = described.data, described.names

    def beside(place: str) -> str:
        return place if place.startswith("bundled:") else place_of(path.parent, place)

    places = {s: beside(d) for s, d in data.items()} if isinstance(data, dict) else beside(data)
    names = beside(names) if isinstance(names, str) else names
    return described.model_copy(update={"data": places, "names": names})
