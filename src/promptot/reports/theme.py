"""The report's colours, once: the page's style sheet and every figure take them from here."""

from __future__ import annotations

from collections.abc import Mapping

SERIES = 5  # colours for methods; more methods than that reuse them with another dash and marker

_LIGHT_AND_DARK: Mapping[str, tuple[str, str]] = {
    "paper": ("#f6f6f3", "#131419"),
    "card": ("#ffffff", "#1c1e25"),
    "ink": ("#1b1c22", "#ededf2"),
    "muted": ("#5c606d", "#a6abb9"),
    "line": ("#dfe0e6", "#343743"),
    "track": ("#ececf1", "#2c2f3a"),
    "good": ("#0f6b3c", "#63d297"),
    "bad": ("#ad2116", "#ff8f83"),
    "heat": ("#1c5cc8", "#76a9ff"),
    "on-heat": ("#ffffff", "#10131b"),
    "series-0": ("#646a78", "#a6abb9"),
    "series-1": ("#bb4d00", "#f7a053"),
    "series-2": ("#1c5cc8", "#76a9ff"),
    "series-3": ("#0b7560", "#4fcdb0"),
    "series-4": ("#8238c4", "#c79bff"),
}
LIGHT: Mapping[str, str] = {name: light for name, (light, _) in _LIGHT_AND_DARK.items()}
DARK: Mapping[str, str] = {name: dark for name, (_, dark) in _LIGHT_AND_DARK.items()}
