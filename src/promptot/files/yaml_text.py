"""YAML of plain kinds, without what makes a short text large; its other bounds are `reading`'s."""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.events import AliasEvent, CollectionStartEvent, NodeEvent, ScalarEvent
from yaml.nodes import MappingNode, Node, ScalarNode
from yaml.resolver import Resolver

from promptot.files.reading import (
    DEEPEST,
    LONGEST_NUMBER,
    MIB,
    PathLike,
    Unreadable,
    brief,
    check_characters,
    read_text,
    too_deep,
)

LARGEST_YAML = 8 * MIB
"""Bytes of a YAML file: it takes twenty times the time that JSON takes."""

_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in
                  ("str", "int", "float", "bool", "null", "map", "seq"))  # fmt: skip
_NULL = "tag:yaml.org,2002:null"
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_yaml(path: PathLike, largest: int = LARGEST_YAML, *, as_text: bool = False) -> Any:
    """The value in a YAML file, see `parse_yaml`.

    Raises:
        Unreadable: as `read_text` and `parse_yaml`.
    """
    return parse_yaml(read_text(path, largest), as_text=as_text)


def parse_yaml(text: str, *, exponents: bool = False, as_text: bool = False) -> Any:
    """A YAML value of plain kinds: mappings, lists, text, numbers, true, false and null.

    Dates are text. Anchors and aliases, with which a few lines can stand for gigabytes, are
    refused, as are other tags, keys that come twice, and what is nested too deeply.

    Args:
        exponents: take 1e-4 for a number, which YAML 1.1 takes for text.
        as_text: take every key and every value but null for the text that it is written as: `no`
            and `007` are names, and not false and 7.

    Raises:
        Unreadable: it is something else.

    Example:
        >>> parse_yaml("{a: 2024-02-30, b: [1, 1e-4]}", exponents=True)
        {'a': '2024-02-30', 'b': [1, 0.0001]}
        >>> parse_yaml("{no: 007}"), parse_yaml("{no: 007}", as_text=True)
        ({False: 7}, {'no': '007'})
        >>> parse_yaml("a: &x [1]")
        Traceback (most recent call last):
        promptot.files.reading.Unreadable: line 1: anchors and aliases (&x, *x) are not read
    """
    if _SURROGATE.search(text):
        raise Unreadable("it is not valid text")
    loader = (_AsText if as_text else _WithExponents if exponents else _Loader)(text)
    try:
        value = loader.get_single_data()
    except Unreadable:
        raise
    except RecursionError:
        raise Unreadable(too_deep()) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f"line {mark.line + 1}: "
        raise Unreadable(f"{where}it is no YAML ({error.problem or error.context})") from None
    except (yaml.YAMLError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        reason = " ".join(str(error).split())
        raise Unreadable(f"it is no YAML ({reason:.120})") from None
    finally:
        loader.dispose()
    check_characters(value)
    return value


class _Events:
    """What composes a value of YAML's events; libyaml finds these ten times as fast as Python."""

    def __init__(self, text: str) -> None:
        kind = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
        parser: Any = kind(text)
        self.check_event = parser.check_event
        self.peek_event = parser.peek_event
        self.get_event = parser.get_event
        self.dispose = parser.dispose


class _Loader(_Events, Composer, SafeConstructor, Resolver):
    """Safe YAML of plain kinds, without what makes a short text large."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML has it
        first: [(tag, pattern) for tag, pattern in resolvers if tag in _TAGS]
        for first, resolvers in Resolver.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        _Events.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)
        self._depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()
        where = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None) is not None:
            raise Unreadable(f"{where}anchors and aliases (&x, *x) are not read")
        if isinstance(event, ScalarEvent | CollectionStartEvent) and isinstance(event, NodeEvent):
            tag = event.tag
            if tag is not None and tag != "!" and tag not in _TAGS:
                raise Unreadable(f"{where}the tag {brief(tag)} is not read")
        self._depth += 1
        if self._depth > DEEPEST:
            raise Unreadable(f"{where}{too_deep()}")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: Node, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, MappingNode):
            raise Unreadable(f"{_line(node)}keys and values are expected")
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                raise Unreadable(f"{_line(key_node)}a key must be text or a number")
            key = self.construct_key(key_node)
            if key in found:
                raise Unreadable(f"{_line(key_node)}the key {brief(key)} comes twice")
            found[key] = self.construct_object(value_node, deep=deep)
        return found

    def construct_key(self, node: ScalarNode) -> Any:
        return self.construct_object(node, deep=True)

    def construct_scalar(self, node: Node) -> Any:
        value = node.value
        number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if number and len(str(value)) > LONGEST_NUMBER:
            raise Unreadable(f"{_line(node)}it holds a number of {len(value)} characters")
        return super().construct_scalar(node)  # type: ignore[arg-type]


class _AsText(_Loader):
    """The same, in which every scalar is text, but for values that are null."""

    def construct_key(self, node: ScalarNode) -> Any:
        return self.construct_scalar(node)

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        if isinstance(node, ScalarNode) and node.tag != _NULL:
            return self.construct_scalar(node)
        return super().construct_object(node, deep=deep)


class _WithExponents(_Loader):
    """The same, in which `1e-4` is a number, as everywhere else."""


_WithExponents.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _line(node: Node) -> str:
    return "" if node.start_mark is None else f"line {node.start_mark.line + 1}: "
