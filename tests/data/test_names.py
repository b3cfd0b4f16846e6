from __future__ import annotations

import pytest

from promptot.data.class_names import check_class_names, check_template, clean_name
from promptot.errors import PromptotError


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("golden_retriever", "golden retriever"),
        (" a__b  c_", "a b c"),
        ("Boeing 737-800", "Boeing 737-800"),
        ("cafe\u0301", "café"),
        ("___", ""),
    ],
)
def test_clean_name(folder: str, name: str) -> None:
    assert clean_name(folder) == name


@pytest.mark.parametrize(
    ("names", "part"),
    [([], "no class names"), (["a", " "], "empty"), (["a", "b", "A"], "'A' comes twice")],
)
def test_bad_class_names(names: list[str], part: str) -> None:
    with pytest.raises(PromptotError, match=part):
        check_class_names(names)


def test_good_class_names() -> None:
    check_class_names(["a", "b", "a b"])


@pytest.mark.parametrize("template", ["", "a photo", "{} {}", "{0}", "{name}", "{}}", "{ {}"])
def test_bad_templates(template: str) -> None:
    with pytest.raises(PromptotError, match="exactly once"):
        check_template(template)


@pytest.mark.parametrize("template", ["{}", "{} texture.", "a photo of a {}, a type of pet."])
def test_good_templates(template: str) -> None:
    check_template(template)
