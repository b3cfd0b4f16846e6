"""Which backbones may be loaded because an adapter's card names them.

A card comes from whoever made the adapter. What it names is loaded unasked if that touches nothing
but what is here by the user's own will: a bundled model, weights of open_clip's own list that have
been downloaded already, and whatever this user has loaded by name on this machine before. Such
names are noted in the user's own folder for state, a file each, out of reach of any adapter. A
local folder or file is noted by its absolute path, so a relative name means what it meant then.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from pathlib import Path

from promptot.errors import PromptotError, UnaskedBackbone
from promptot.files.writing import write_json

LOCAL = "local-dir:"
_OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def check_named(name: str) -> None:
    """Refuse a backbone that a card names, unless it is known (see above).

    Raises:
        UnaskedBackbone: it is not.
    """
    if not (name.startswith("bundled:") or _is_noted(name) or _is_downloaded(name)):
        raise UnaskedBackbone(name)


def note(name: str) -> None:
    """Remember that the user has loaded a backbone by this name; silent where that fails."""
    if name.startswith("bundled:"):
        return
    with contextlib.suppress(PromptotError, OSError, ValueError, RuntimeError):
        place = _place(name)
        if not place.exists():
            write_json(place, {"backbone": identity(name)})


def identity(name: str) -> str:
    """A name that means the same in every working directory.

    Example:
        >>> identity("open_clip:ViT-B-16/openai")
        'open_clip:ViT-B-16/openai'
        >>> identity("openai:clip.pt") == f"openai:{Path.cwd() / 'clip.pt'}"
        True
    """
    source, _, rest = name.partition(":")
    place = rest.removeprefix(LOCAL)
    try:
        path = Path(place)
        local = source == "openai" or place != rest or path.is_absolute() or ".." in path.parts
        # Nothing outside the working directory is looked at: it could be on another machine.
        if local or path.exists():
            return f"{source}:{LOCAL if place != rest else ''}{os.path.abspath(place)}"  # noqa: PTH100
    except (OSError, ValueError):  # no path at all
        pass
    return name


def shown(name: str) -> str:
    """A name for people who have no business knowing where on this machine things lie.

    Example:
        >>> shown("openai:/home/me/clip.pt"), shown("hf:user/clip"), shown("hf:/home/me/clip")
        ('openai:clip.pt', 'hf:user/clip', 'hf:clip')
    """
    source, _, rest = name.partition(":")
    if identity(name) == name and not Path(rest).is_absolute() and LOCAL not in name:
        return name
    return f"{source}:{Path(rest.removeprefix(LOCAL)).name}"


def state_folder() -> Path:
    """The user's folder for what programs remember; `PROMPTOT_STATE` says another one.

    Relative ones don't count: an archive that was unpacked in the working directory could hold it.

    Raises:
        RuntimeError: this user has no home.
    """
    own = Path(os.environ.get("PROMPTOT_STATE", ""))
    if own.is_absolute():
        return own
    windows = sys.platform == "win32"
    found = Path(os.environ.get("LOCALAPPDATA" if windows else "XDG_STATE_HOME", ""))
    default = Path("AppData/Local" if windows else ".local/state")
    return (found if found.is_absolute() else Path.home() / default) / "promptot"


def _is_noted(name: str) -> bool:
    try:
        return _place(name).is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def _place(name: str) -> Path:
    key = hashlib.sha256(identity(name).encode("utf-8", "surrogatepass")).hexdigest()
    return state_folder() / "backbones" / f"{key[:32]}.json"


def _is_downloaded(name: str) -> bool:
    """Whether it is `open_clip:<arch>/<tag>` of open_clip's list, with its weights in the cache."""
    source, _, rest = name.partition(":")
    model, _, tag = rest.rpartition("/")
    if source != "open_clip" or not model or rest.startswith(LOCAL):
        return False
    try:
        from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

        if tag not in list_pretrained_tags_by_model(model):
            return False
        settings = get_pretrained_cfg(model, tag)
        repository, _, file = settings.get("hf_hub", "").rpartition("/")
        if not repository:
            file = Path(settings.get("url", "")).name
            return bool(file) and (Path.home() / ".cache" / "clip" / file).is_file()
        from huggingface_hub import try_to_load_from_cache

        files = (file, f"{Path(file).stem}.safetensors") if file else _OPEN_CLIP_FILES
        return any(isinstance(try_to_load_from_cache(repository, one), str) for one in files)
    except (ImportError, OSError, ValueError, RuntimeError, AttributeError):
        return False
