"""Push and pull, with a folder in the place of the Hub."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

import promptot
from promptot.backbones import Backbone
from promptot.errors import PromptotError
from promptot.runs.adapter import load_adapter

huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that huggingface_hub's calls go to: repositories by name."""
    root = tmp_path / "hub"

    class Api:
        def __init__(self, token: str | None = None) -> None:
            self.token = token

        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
            (root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
            (root / repo_id / ".private").write_text(str(private))

        def upload_folder(
            self, *, repo_id: str, folder_path: str, allow_patterns: list[str], commit_message: str
        ) -> None:
            for path in Path(folder_path).iterdir():
                if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                    shutil.copy(path, root / repo_id / path.name)

    def snapshot_download(repo_id: str, **kwargs: Any) -> str:
        if not (root / repo_id).is_dir():
            raise FileNotFoundError(f"404: {repo_id} not found\nmore about it")
        return str(root / repo_id)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return root


@pytest.fixture
def run(photos: Path, tmp_path: Path, backbone: Backbone) -> Path:
    overrides = ["optim.epochs=1"]
    promptot.fit(photos, tmp_path / "run", backbone=backbone, shots=1, overrides=overrides)
    return tmp_path / "run"


def test_pushed_and_pulled_it_predicts_the_same(
    hub: Path, run: Path, photos: Path, tmp_path: Path, backbone: Backbone
) -> None:
    assert promptot.push(run, "me/photos_1") == "https://huggingface.co/me/photos_1"
    sent = {path.name for path in (hub / "me" / "photos_1").iterdir()}
    assert sent == {"card.json", "prompts.safetensors", "README.md", ".private"}
    folder = promptot.pull("me/photos_1", tmp_path / "pulled")
    image = next(photos.glob("*/*.png"))
    expected = promptot.load(run, backbone).classify([image], top_k=4)
    assert promptot.load(folder, backbone).classify([image], top_k=4) == expected
    assert promptot.load("hf-hub:me/photos_1", backbone).classify([image], top_k=4) == expected


def test_nothing_of_the_images_is_sent(hub: Path, run: Path, photos: Path) -> None:
    promptot.push(run, "me/photos", private=True)
    for path in (hub / "me" / "photos").iterdir():
        assert str(photos).encode() not in path.read_bytes()
    assert (hub / "me" / "photos" / ".private").read_text() == "True"


def test_the_model_card(hub: Path, run: Path) -> None:
    promptot.push(run, "me/photos")
    text = (hub / "me" / "photos" / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlibrary_name: promptot\n")
    assert "# me/photos" in text
    assert "red, yellow" in text.replace("blue, green apple, ", "")
    assert 'promptot.load("hf-hub:me/photos", backbone="..."' in text  # a local file, here
    accuracy = load_adapter(run / "adapter")[0].metrics["test_accuracy"]
    assert f"| test accuracy | {100 * accuracy:.1f} % |" in text
    assert "prompt-ot" in text


def test_names_in_the_model_card_are_only_text() -> None:
    from promptot.runs.card import BackboneIdentity, Card, LearnedShape
    from promptot.runs.hub import model_card

    card = Card(
        backbone=BackboneIdentity(name="hf:openai/clip-vit-base-patch16", weight_hash="a" * 64),
        prompts=LearnedShape(design="none"),
        class_names=("<script>x</script>", "[a](http://b)", "two\nlines\n---", "c_d"),
        template="a photo of a {}.",
        tensors_sha256="b" * 64,
    )
    text = model_card(card, "me/it")
    assert "\\<script\\>" in text
    assert "\\[a\\](http" in text
    assert "two lines ---" in text
    assert "base_model: openai/clip-vit-base-patch16" in text
    named = 'backbone="hf:openai/clip-vit-base-patch16"'  # unnamed it would not be downloaded
    assert f'load("hf-hub:me/it", {named})' in text


@pytest.mark.parametrize(
    "name", ["me", "me/it/that", "../it", "me/..", "", "https://x/y", "me/ it"]
)
def test_names_of_no_repository(hub: Path, run: Path, tmp_path: Path, name: str) -> None:
    for call in (lambda: promptot.push(run, name), lambda: promptot.pull(name, tmp_path / "p")):
        with pytest.raises(PromptotError, match="names no repository"):
            call()


def test_what_the_hub_refuses_is_said_in_one_line(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(PromptotError) as refused:
        promptot.pull("me/nothing", tmp_path / "p")
    assert "could not fetch 'me/nothing': 404: me/nothing not found." in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "p").exists()


def test_a_damaged_adapter_is_neither_pushed_nor_pulled(
    hub: Path, run: Path, tmp_path: Path
) -> None:
    promptot.push(run, "me/it")
    (hub / "me" / "it" / "prompts.safetensors").write_bytes(b"no tensors")
    with pytest.raises(PromptotError, match="damaged"):
        promptot.pull("me/it", tmp_path / "p")
    assert not (tmp_path / "p").exists()
    (run / "adapter" / "card.json").write_text(json.dumps({"format_version": 1}))
    with pytest.raises(PromptotError, match="damaged"):
        promptot.push(run, "me/other")
    assert not (hub / "me" / "other").exists()


def test_what_is_in_the_way_is_kept(hub: Path, run: Path, tmp_path: Path) -> None:
    promptot.push(run, "me/it")
    promptot.pull("me/it", tmp_path / "p")
    with pytest.raises(PromptotError, match="not empty.*--overwrite"):
        promptot.pull("me/it", tmp_path / "p")
    promptot.pull("me/it", tmp_path / "p", overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(PromptotError, match="not empty"):
        promptot.pull("me/it", tmp_path / "mine", overwrite=True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
