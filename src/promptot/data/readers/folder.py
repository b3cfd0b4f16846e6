"""A folder of class folders, as people keep their images, on the disk or in an archive."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Any, Protocol, TypeVar

from promptot.data.class_names import DEFAULT_TEMPLATE, check_class_names, clean_name, in_order
from promptot.data.images.read_image import is_image_name
from promptot.data.readers.junk import is_junk, left_out
from promptot.data.readers.layout_notes import METADATA, layout_notes
from promptot.data.readers.split_words import split_among_words, split_of, taken_for
from promptot.data.task import Example, ImageTask, Skipped
from promptot.errors import PromptotError, listed

_LAYOUT = "Put the images of each class into a folder named after the class."


class Tree(Protocol):
    """What is asked of a folder: a `Path` has it, and so has a folder in an archive."""

    @property
    def name(self) -> str: ...
    def is_dir(self) -> bool: ...
    def iterdir(self) -> Iterator[Any]: ...
    def resolve(self) -> Any: ...


Place = TypeVar("Place", bound=Tree)


def load_folder(path: str | os.PathLike[str], template: str = DEFAULT_TEMPLATE) -> ImageTask:
    """Read a folder of class folders, with or without split folders above them.

    ```
    pets/cat/1.jpg                  pets/train/cat/1.jpg   pets/test/cat/9.jpg
    pets/golden_retriever/1.jpg     pets/train/dog/1.jpg   pets/val/dog/7.jpg
    ```

    The class folders are the labels, in the order of `class_names.in_order`; underscores in their
    names become spaces. Images may lie deeper inside a class folder; links are followed, but no
    folder is entered twice, so that an image has one class. Hidden files and files whose ending is
    not an image's are passed over, and so are folders that network drives and systems make
    (`junk`); images that lie in no class folder are listed in `skipped`. Split folders are called
    by one of `split_words.SPLITS`, in any case, or hold one of these words (`training_set`,
    `val2017`) where all folders do; without them every image is in `train` (`split_examples`
    divides them). A single folder around all of that is looked into. What was taken for what is
    said in `notes`. No image is opened here: `choose_shots` reads those that are used.

    Raises:
        PromptotError: the folder is missing, holds no class folders, or an empty one; two classes
            have one name, or a name is empty; split folders and class folders are mixed; there are
            split folders, but no class folders in them.
    """
    root = Path(path)
    if not root.is_dir():
        problem = "is a file, not a folder" if root.exists() else "does not exist"
        raise PromptotError(f"The folder '{root}' {problem}.", fix="Check the path.")
    return load_tree(root, name_of_place(root), template)


def name_of_place(path: Path) -> str:
    """What a task is called that lies there."""
    stem = path.resolve().name if path.is_dir() else path.stem
    return clean_name(stem) or str(path)


def load_tree(root: Place, name: str, template: str = DEFAULT_TEMPLATE) -> ImageTask:
    """`load_folder` for any tree of folders, such as an archive's.

    Args:
        name: what to call the task.
    """
    junk: dict[str, str] = {}
    entries_in(root, junk)
    root = _unwrap(root)
    splits = _split_folders(root)
    folders = {
        split: class_folders(top, junk) for split, top in (splits or {"train": root}).items()
    }
    if not any(folders.values()):
        raise _no_classes(root)
    class_names = _class_names(folders)
    labels = {name.casefold(): label for label, name in enumerate(class_names)}
    tops = (root, *splits.values())
    # What lies in one class is not found again through a link from another.
    entered = {_identity(folder) for own in (tops, *folders.values()) for folder in own}
    examples = {
        split: [
            Example(str(image), labels[clean_name(folder.name).casefold()])
            for folder in own
            for image in _images(folder, entered, junk)
        ]
        for split, own in folders.items()
    }
    _check_filled(root, class_names, examples)
    written = {folder.name: split for split, folder in splits.items()}
    return ImageTask(
        name=name,
        class_names=class_names,
        template=template,
        skipped=tuple(
            Skipped(str(image), "it lies in no class folder")
            for top in tops
            for image in _own_images(top)
        ),
        notes=(
            *([taken_for(written, "the folders")] if written else []),
            *layout_notes(folders, _inner_names),
            *left_out(junk.values()),
        ),
    ).with_splits(examples)


def all_images(folder: Path) -> list[str]:
    """Every image in or below a folder."""
    return [str(image) for image in _images(folder)]


def find_images(places: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Image files from files, folders and patterns such as "photos/*.jpg", in their order.

    Of a folder, every image in or below it is taken. What does not exist and is no pattern is
    kept as it is, for the reader to report.

    Raises:
        PromptotError: a folder holds no image, or no file matches a pattern.
    """
    images: list[str] = []
    for place in (os.fspath(path) for path in places):
        folder = Path(place)
        if os.path.isdir(folder):  # noqa: PTH112 - also of a name that no file can have
            inside = all_images(folder)
            if not inside:
                raise PromptotError(f"There is no image in '{place}'.", fix="Check the path.")
            images += inside
        elif has_magic(place) and not os.path.exists(folder) and "\0" not in place:  # noqa: PTH110
            matching = sorted(glob(place, recursive=True))  # noqa: PTH207 - may be absolute
            if not matching:
                raise PromptotError(f"No file matches '{place}'.", fix="Check the pattern.")
            images += matching
        else:
            images.append(place)
    return images


def _unwrap(root: Place) -> Place:
    """The folder inside `root` if that is all there is, and what it holds are folders of images."""
    while True:
        folders = list(_folders_with_images(root))
        if len(folders) != 1 or _own_images(root) or split_of(folders[0].name) is not None:
            return root
        inner = list(_folders_with_images(folders[0]))
        named = any(split_of(folder.name) is not None for folder in inner)
        if _own_images(folders[0]) or (len(inner) < 2 and not named):
            return root
        root = folders[0]


def _split_folders(root: Place) -> dict[str, Place]:
    """The split folders by split; empty if the folders below `root` are the classes themselves.

    A class may well be called "train". A split folder holds folders of images, a class folder
    images; what could be either is refused rather than guessed.
    """
    with_images = list(_folders_with_images(root))
    named = [folder for folder in with_images if split_of(folder.name) is not None]
    above_classes = [folder for folder in named if any(_folders_with_images(folder))]
    others = [folder for folder in with_images if folder not in above_classes]
    if named and len(named) == len(with_images) and others:
        raise _no_classes_in_splits(root, others)
    if others:
        by_words = _by_words(with_images)
        if by_words:
            return by_words
        without_own = [folder for folder in above_classes if not _own_images(folder)]
        if without_own:
            raise PromptotError(
                f"'{root}' holds split folders ({_names(without_own)}) and other folders with "
                f"images ({_names(others)}).",
                fix="Keep only the split folders; or, if these are all classes, put the images "
                "straight into the class folders.",
            )
        return {}
    splits: dict[str, Place] = {}
    for folder in above_classes:
        split = split_of(folder.name) or ""
        if split in splits:
            raise PromptotError(
                f"'{splits[split].name}' and '{folder.name}' in '{root}' are both the {split} "
                "split.",
                fix="Keep one of them.",
            )
        splits[split] = folder
    return splits


def _by_words(folders: Sequence[Place]) -> dict[str, Place]:
    """Folders by the split that a word in their name says, if it is another one for each of them.

    Classes may hold such a word too (a test tube), so that all must hold class folders, and nothing
    else.
    """
    splits = {split_among_words(folder.name): folder for folder in folders}
    if None in splits or len(splits) < max(2, len(folders)):
        return {}
    if any(_own_images(folder) or not any(_folders_with_images(folder)) for folder in folders):
        return {}
    return {split: folder for split, folder in splits.items() if split is not None}


def _inner_names(folder: Tree) -> tuple[list[str], bool]:
    """The names of the folders with images in a folder, and whether it has images of its own."""
    return [inside.name for inside in _folders_with_images(folder)], bool(_own_images(folder))


def _folders_with_images(top: Place) -> Iterator[Place]:
    """Those in a folder; each is looked into when it is asked for."""
    return (folder for folder in class_folders(top) if next(_images(folder), None) is not None)


def _own_images(folder: Place) -> list[Place]:
    return [e for e in entries_in(folder) if is_image_name(e.name) and not e.is_dir()]


def _names(folders: Sequence[Tree]) -> str:
    return listed([folder.name for folder in folders], 5, quoted=False, counted=False)


def class_folders(top: Place, junk: dict[str, str] | None = None) -> list[Place]:
    """The folders in a folder, which may be classes; see `entries_in`."""
    return [entry for entry in entries_in(top, junk) if entry.is_dir()]


def _class_names(folders: Mapping[str, Sequence[Tree]]) -> tuple[str, ...]:
    """The cleaned names of the class folders of all splits, in their order."""
    for tops in folders.values():
        for folder in tops:
            if not clean_name(folder.name):
                raise PromptotError(
                    f"The class folder '{folder}' has an empty class name.", fix="Rename it."
                )
        if tops:
            check_class_names(clean_name(folder.name) for folder in tops)
    names = in_order({clean_name(folder.name) for tops in folders.values() for folder in tops})
    return tuple({name.casefold(): name for name in names}.values())


def _check_filled(
    root: Tree, class_names: tuple[str, ...], examples: Mapping[str, Sequence[Example]]
) -> None:
    filled = {example.label for split in examples.values() for example in split}
    empty = [name for label, name in enumerate(class_names) if label not in filled]
    if len(empty) == len(class_names):
        raise _no_classes(root)
    if empty:
        raise PromptotError(
            f"No image in the class folders {listed(empty, 5)} of '{root}'.",
            fix="Add images or remove the folders.",
        )


def _images(
    folder: Place, entered: set[Any] | None = None, junk: dict[str, str] | None = None
) -> Iterator[Place]:
    """Every image file in or below `folder`, sorted; no folder is entered twice, even by links.

    Args:
        folder: where to begin; it is entered in any case.
        entered: identities of folders that are not to be entered; those that are, are added.
        junk: see `entries_in`.
    """
    entered = set() if entered is None else entered
    entered.add(_identity(folder))
    waiting = [iter(entries_in(folder, junk))]  # of folders in each other, the innermost last
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
        elif entry.is_dir():
            own = _identity(entry)
            if own not in entered:
                entered.add(own)
                waiting.append(iter(entries_in(entry, junk)))
        elif is_image_name(entry.name):
            yield entry


def _identity(folder: Tree) -> Any:
    """What a folder has in common with every link to it: its device and number on the disk."""
    if isinstance(folder, Path):
        with contextlib.suppress(OSError):
            state = folder.stat()
            if state.st_ino:
                return state.st_dev, state.st_ino
    return folder.resolve()


def entries_in(folder: Place, junk: dict[str, str] | None = None) -> list[Place]:
    """What lies in a folder, sorted, without what is hidden and without junk folders.

    Args:
        junk: gets the path and the name of each junk folder.
    """
    try:
        visible = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise PromptotError(
            f"Can't list the folder '{folder}': {error.strerror}.", fix="Check its permissions."
        ) from None
    left = [entry for entry in visible if is_junk(entry.name) and entry.is_dir()]
    if junk is not None:
        junk |= {str(entry): entry.name for entry in left}
    if left:
        visible = [entry for entry in visible if entry not in left]
    return sorted(visible, key=lambda entry: entry.name)  # paths sort by case on some systems only


def _no_classes(root: Tree) -> PromptotError:
    loose = len(_own_images(root))
    has = f"{loose} images but no class" if loose else "no class"
    return PromptotError(f"'{root}' holds {has} folders with images.", fix=_fix(root))


def _no_classes_in_splits(root: Tree, splits: Sequence[Tree]) -> PromptotError:
    return PromptotError(
        f"The folders {_names(splits)} in '{root}' are called as splits, and hold images without "
        "class folders.",
        fix=_fix(root, *splits),
    )


def _fix(*folders: Tree) -> str:
    """What to do about images without classes; a table beside them may say them."""
    entries = [entry for folder in folders for entry in entries_in(folder)]
    files = [entry.name for entry in entries if not entry.is_dir()]
    tables = [name for name in files if name.lower().endswith((".csv", ".tsv", ".jsonl"))]
    if not tables:
        return _LAYOUT
    if not isinstance(folders[0], Path):
        return f"{_LAYOUT} A table in an archive, such as '{tables[0]}', is not read: unpack it."
    more = "" if tables[0].lower() in METADATA else " itself"
    return f"{_LAYOUT} Or, if '{tables[0]}' says the classes, give this table{more}."
