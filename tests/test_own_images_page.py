"""The page on one's own images: its commands and its Python code run in order."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "your-own-images.md"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_page_runs(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    photos = make_photos("photos", images=6)
    shutil.copy(next(photos.glob("*/*.png")), tmp_path / "new.jpg")
    blocks = re.findall(r"```(sh|python)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 7
    commands = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
    script = tmp_path / "page.py"
    for kind, text in blocks:
        if kind == "sh":
            command = ["bash", "-e", "-c", text]
        else:  # later blocks go on from the ones before
            with script.open("a", encoding="utf-8") as file:
                file.write(text)
            command = [sys.executable, str(script)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        print(done.stdout)
