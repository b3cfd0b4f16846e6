"""Runs as classifiers of fixed names for other runtimes."""

from __future__ import annotations

import os
from pathlib import Path

from promptot.backbones.backbone import Backbone
from promptot.errors import PromptotError
from promptot.exporting.export import Export, check_export, export_model
from promptot.files.reading import PathLike
from promptot.runs.classifier import ClassNames, load
from promptot.runs.hub import PREFIX
from promptot.runs.manifest import find_manifest


def export(
    run: PathLike,
    out: PathLike,
    format: str = "onnx",
    class_names: ClassNames | None = None,
    *,
    backbone: Backbone | str | None = None,
    overwrite: bool = False,
) -> Export:
    """Write a run as a classifier of fixed names for another runtime.

    What a run of LoRA learned is added to the weights: as "open_clip", "transformers" and "openai"
    it is a plain CLIP then, for any class names, which these libraries load without code of ours
    (sentence-transformers what is for transformers).

    The folder gets the model and `classifier.json`: class names, how images are to be prepared, and
    the differences that were measured. It appears only after the export, read back by its own
    runtime, has given the original's answers on real images to within 1e-4 (probabilities, cosine
    similarities and text features): on those that the run was trained on, as far as they are still
    where they were, and drawings that ship with promptot.

    Args:
        run: a run folder that `fit` wrote, or its adapter folder.
        out: the folder to write.
        format: "onnx", "torchscript", "open_clip", "transformers"; of a run that merges also
            "openai".
        class_names: the names to classify among, or lists of a name and its synonyms; by default
            those of the training.
        backbone: where the adapter belongs; by default loaded by the name on its card.
        overwrite: replace an earlier export in `out`.

    Raises:
        PromptotError: the format or a name is unknown to what was learned, a library is missing,
            `out` holds something, or the export differs from the original.
    """
    check_export(out, format, overwrite, *([] if os.fspath(run).startswith(PREFIX) else [run]))
    classifier = load(run, backbone, "cpu")
    return export_model(
        classifier.model_for(class_names),
        out,
        format,
        name=classifier.card.backbone.name,
        images=_images_of(Path(run)),
        overwrite=overwrite,
    )


def _images_of(run: Path) -> list[str]:
    try:
        manifest = find_manifest(run)
    except PromptotError:
        return []  # the images are a nicety
    return [] if manifest is None else manifest.training_images()
