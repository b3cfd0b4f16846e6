"""Adapters on the Hugging Face Hub."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from promptot.errors import PromptotError, listed
from promptot.files.owned import unknown_in
from promptot.files.writing import output_folder, write_bytes, write_text
from promptot.runs.adapter import TENSORS, Adapter, load_adapter, warn_of_activation
from promptot.runs.card import CARD, Card
from promptot.runs.run_folder import ADAPTER

README = "README.md"
FILES = (CARD, TENSORS, README)
PREFIX = "hf-hub:"
Result = TypeVar("Result")


def push(
    run: str | os.PathLike[str], repository: str, *, private: bool = False, token: str | None = None
) -> str:
    """Upload a run's adapter and a model card; the repository is made if there is none.

    Only `card.json`, `prompts.safetensors` and the model card are sent: no image, no path of one.

    Args:
        run: a run folder that `fit` wrote, or its adapter folder.
        repository: "user/name".
        private: make a new repository visible to its owner alone.
        token: of the Hub; by default the one that `hf auth login` stored.

    Returns:
        the repository's address.

    Raises:
        PromptotError: huggingface_hub is missing, there is no adapter, or the Hub refused.
    """
    folder = adapter_folder(run)  # nothing damaged is published
    return push_adapter(load_adapter(folder), repository, private=private, token=token)


def push_adapter(
    adapter: Adapter, repository: str, *, private: bool = False, token: str | None = None
) -> str:
    """`push`, of an adapter in memory."""
    hub, repository = _hub(), _name(repository)
    warn_of_activation(adapter.card)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "adapter"
        adapter.save(place)
        write_text(place / README, model_card(adapter.card, repository))

        def upload() -> None:
            api = hub.HfApi(token=token)
            api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repository,
                folder_path=str(place),
                allow_patterns=list(FILES),
                commit_message="Adapter, written by promptot",
            )

        _ask(upload, f"push to '{repository}'")
    return f"https://huggingface.co/{repository}"


def pull(
    repository: str,
    out: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Fetch an adapter into a folder that `promptot.load` takes.

    Args:
        repository: "user/name", with or without "hf-hub:" before it.
        out: the folder.
        revision: a branch, a tag or a commit; by default the newest.
        token: as in `push`.
        overwrite: replace an adapter in `out`.

    Raises:
        PromptotError: huggingface_hub is missing, the Hub refused, `out` holds something, or what
            was fetched is no sound adapter.
    """
    target = output_folder(out)
    if target.exists() and any(target.iterdir()):
        ours = (target / CARD).is_file() and not unknown_in(target, FILES)
        if not (ours and overwrite):
            raise PromptotError(
                f"'{target}' is not empty.",
                fix="Replace the adapter in it (--overwrite), or choose another folder."
                if ours
                else "Choose another folder.",
            )
    source = fetch(repository, revision=revision, token=token)
    card, _ = load_adapter(source)
    warn_of_activation(card)
    for name in reversed(FILES):  # the card last: without it there is no adapter
        if (source / name).is_file():
            write_bytes(target / name, (source / name).read_bytes())
    return target


def fetch(repository: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """The adapter of a repository, in the local cache of the Hub.

    Raises:
        PromptotError: huggingface_hub is missing, or the Hub refused.
    """
    hub, name = _hub(), _name(repository)
    return Path(
        _ask(
            lambda: hub.snapshot_download(
                name, revision=revision, token=token, allow_patterns=list(FILES)
            ),
            f"fetch '{name}'",
        )
    )


def adapter_folder(run: str | os.PathLike[str]) -> Path:
    """The adapter folder of a run folder, or the folder itself if it is an adapter.

    An adapter on the Hub ("hf-hub:user/name") is fetched first.
    """
    if os.fspath(run).startswith(PREFIX):
        return fetch(os.fspath(run))
    folder = Path(run)
    inner = folder / ADAPTER
    return folder if (folder / CARD).is_file() or not inner.exists() else inner


def model_card(card: Card, repository: str) -> str:
    """The README of a repository: what the adapter is, how well it did, how to use it."""
    name = card.backbone.name
    source, _, rest = name.partition(":")
    known = source in ("open_clip", "bundled") and not rest.startswith("local-dir:")
    known = known or (source == "hf" and not Path(rest).exists() and rest.count("/") == 1)
    # A name of odd characters would be no end of the code or of the line that it stands in.
    plain_name = known and re.fullmatch(r"[\w.:/-]+", name, re.ASCII)
    base = f"base_model: {rest}\n" if plain_name and source == "hf" else ""
    shown = listed([_plain(one) for one in card.class_names], 20, quoted=False)
    measured = "\n".join(
        f"| {_plain(key.replace('_', ' '))} | {100 * value:.1f} % |"
        for key, value in card.metrics.items()
        if key.endswith("accuracy")
    )
    results = f"\n| on held-out images | |\n|---|---:|\n{measured}\n" if measured else ""
    argument = f', backbone="{name if plain_name else "..."}"'
    argument = "" if source == "bundled" else argument  # only these are loaded unnamed
    where = (
        ""
        if known
        else "\nThe backbone was a local file or folder; load it by its place on your machine,\n"
        "with `backbone=`. Its weights must be the same, and what is done with them: both are\n"
        "checked.\n"
    )
    recipe = card.recipe_name or card.prompts.design
    return f"""---
library_name: promptot
pipeline_tag: zero-shot-image-classification
tags:
- clip
- prompt-learning
- promptot
{base}---

# {repository}

Learned prompt tokens for a frozen CLIP ({_plain(name)}, weights {card.backbone.weight_hash[:12]}),
made with the recipe {_plain(recipe)} of promptot. The CLIP itself is not in here.

Trained on {len(card.class_names)} classes: {shown}.
{results}
```python
import promptot

classifier = promptot.load("{PREFIX}{repository}"{argument})
classifier.classify(["new.jpg"], class_names=["cat", "red panda"])
```
{where}
The card (`card.json`) holds every value of the recipe and the versions it was trained with.
{_function(card)}"""


def _function(card: Card) -> str:
    """What the backbone does with its weights and with images, as a table."""
    rows = [
        f"| {_plain(key)} | {_plain(json.dumps(value, ensure_ascii=False))} |"
        for key, value in (card.backbone.function or {}).items()
        if not key.startswith("tokenizer.")
    ]
    return "\n".join(["\n| backbone | |", "|---|---|", *rows, ""]) if rows else ""


def _plain(text: str) -> str:
    """Text for Markdown that can't become markup, a link or another line."""
    kept = "".join(c if c.isprintable() else " " for c in text)
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in kept)


def _name(repository: str) -> str:
    name = repository.replace("\\", "/").removeprefix(PREFIX)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise PromptotError(f"'{name}' names no repository.", fix="Write it like 'user/name'.")
    return name


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise PromptotError(
            "The Hugging Face Hub needs huggingface_hub.", fix="pip install 'promptot[hf]'"
        ) from error
    return huggingface_hub


def _ask(call: Callable[[], Result], what: str) -> Result:
    """Do something on the Hub; its many kinds of errors become one."""
    try:
        return call()
    except PromptotError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PromptotError(
            f"The Hugging Face Hub could not {what}: {reason.rstrip('.')}.",
            fix="Check the name, the network, and that you are logged in (hf auth login).",
        ) from error
