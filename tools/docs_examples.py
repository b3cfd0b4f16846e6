"""For the reference pages: what the sources don't say as mkdocstrings reads it.

`Example:` in a docstring is a section of code, as `Examples:` is; and the arguments of a function
that `takes` the fields of a dataclass are these fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import griffe

TAKES = "promptot.runs.keyword_settings.takes"


class ExampleSections(griffe.Extension):
    """Renames the heading while the sources are read for the site."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.M)


class FieldsAsArguments(griffe.Extension):
    """Gives such functions their arguments, once all sources are read."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        for function in _functions(pkg):
            for decorator in function.decorators:
                called = decorator.value
                if decorator.callable_path == TAKES and isinstance(called, griffe.ExprCall):
                    record = pkg.modules_collection[called.arguments[0].canonical_path]
                    function.parameters = griffe.Parameters(*_fields(record))


def _functions(module: griffe.Module) -> Iterator[griffe.Function]:
    yield from (one for one in module.functions.values() if not one.is_alias)
    for inner in module.modules.values():
        if not inner.is_alias:
            yield from _functions(inner)


def _fields(record: griffe.Class) -> Iterator[griffe.Parameter]:
    """The fields of a dataclass as arguments."""
    kind = griffe.ParameterKind.positional_or_keyword
    for name, member in record.attributes.items():
        if str(member.annotation) == "KW_ONLY":
            kind = griffe.ParameterKind.keyword_only
        elif member.annotation is not None and "property" not in member.labels:
            yield griffe.Parameter(
                name, annotation=member.annotation, kind=kind, default=member.value
            )
