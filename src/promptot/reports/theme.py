"""The report's colours, once: the page's style sheet and every figure take them from here."""

from __future__ import annotations

from collections.abc import Mapping

SERIES = 5  # colours for methods; more methods than that reuse them with another dash and marker

LIGHT: Mapping[str, str] = {
    "paper": "#f6f6f3",
    "card": "#ffffff",
    "ink": "#1b1c22",
    "muted": "#5c606d",
    "line": "#dfe0e6",
    "track": "#ececf1",
    "good": "#0f6b3c",
    "bad": "#ad2116",
    "heat": "#1c5cc8",
    "on-heat": "#ffffff",
    "series-0": "#646a78",
    "series-1": "#bb4d00",
    "series-2": "#1c5cc8",
    "series-3": "#0b7560",
    "series-4": "#8238c4",
}

DARK: Mapping[str, str] = {
    "paper": "#131419",
    "card": "#1c1e25",
    "ink": "#ededf2",
    "muted": "#a6abb9",
    "line": "#343743",
    "track": "#2c2f3a",
    "good": "#63d297",
    "bad": "#ff8f83",
    "heat": "#76a9ff",
    "on-heat": "#10131b",
    "series-0": "#a6abb9",
    "series-1": "#f7a053",
    "series-2": "#76a9ff",
    "series-3": "#4fcdb0",
    "series-4": "#c79bff",
}
