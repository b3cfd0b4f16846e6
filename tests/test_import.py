"""`import promptot` is light, and so are the commands' first words."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import promptot

SOURCES = Path(promptot.__file__).parent
HEAVY = {
    "torch", "torchvision", "timm", "open_clip", "transformers", "sklearn", "scipy", "numpy",
    "matplotlib", "PIL", "pandas", "pydantic", "jinja2", "ot", "safetensors", "tokenizers",
    "typer", "rich", "yaml",
}  # fmt: skip
CODE = """
import sys, time
began = time.perf_counter()
{code}
seconds = time.perf_counter() - began
print(seconds, *sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


def imported(code: str) -> tuple[float, set[str]]:
    """Seconds and top-level modules of some code in an interpreter of its own."""
    printed = subprocess.run(
        [sys.executable, "-c", CODE.format(code=code)], capture_output=True, text=True, check=True
    ).stdout.split()
    return float(printed[0]), set(printed[1:])


def test_import_promptot_imports_nothing_heavy() -> None:
    seconds, modules = imported("import promptot; promptot.__version__; promptot.PromptotError")
    assert "promptot" in modules
    assert not modules & HEAVY
    assert seconds < 0.5  # 0.02 s on a quiet machine: only an import could make it slow


def test_the_command_line_waits_for_its_heavy_libraries() -> None:
    _, modules = imported("from promptot.cli.app import app")
    assert "typer" in modules
    assert not modules & {"torch", "transformers", "open_clip", "timm", "sklearn", "matplotlib"}


def test_everything_that_is_offered_is_there() -> None:
    for name in promptot.__all__:
        assert getattr(promptot, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        promptot.fitt  # noqa: B018


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13), (3, 14)])
def test_the_sources_are_of_every_supported_python(version: tuple[int, int]) -> None:
    if version > sys.version_info[:2]:
        pytest.skip("this Python does not know the grammar of a newer one")
    for path in sorted(SOURCES.rglob("*.py")):
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=version)


NEWER_THAN_3_11 = {"batched", "override", "walk", "get_protocol_members", "is_protocol"}
"""Names of the standard library that Python 3.11 lacks; `ast` knows the grammar only."""


def test_nothing_newer_than_python_3_11_is_used() -> None:
    found = []
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.Attribute):
                base = node.value.id if isinstance(node.value, ast.Name) else ""
                modules = {"itertools", "typing", "enum", "asyncio", "datetime", "contextlib"}
                names = [node.attr] if base in modules or node.attr in {"walk", "add_note"} else []
                names = [n for n in names if not (n == "walk" and base in {"ast", "os"})]
            found += [f"{path.name}: {name}" for name in names if name in NEWER_THAN_3_11]
    assert not found


def test_what_the_package_needs_is_declared() -> None:
    project = tomllib.loads((SOURCES.parents[1] / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    packages = [re.split("[><=]", one)[0] for one in project["dependencies"]]
    assert len(packages) == len(set(packages))
    extras = project["optional-dependencies"]
    assert {"hf", "docs"} <= set(extras)
    needed = " ".join(project["dependencies"]).lower()
    for library in ("transformers", "gradio", "onnx", "tensorboard", "wandb", "mlflow", "mkdocs"):
        assert library not in needed, f"{library} belongs to an extra"
