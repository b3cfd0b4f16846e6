"""`promptot predict`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from promptot.cli import common_options as common
from promptot.cli.console import Screen, Stages, json_text, progress_bar, with_backbone
from promptot.errors import PromptotError

if TYPE_CHECKING:
    from promptot.runs.classifier import Prediction


class PredictOptions(common.Options):
    """What `promptot predict` takes."""

    run: common.RunFolder
    images: Annotated[
        list[str],
        typer.Argument(help="Image files, folders of them, or patterns.", metavar="IMAGES"),
    ]
    classes: Annotated[
        str | None, "Any names, by commas; synonyms of one class by bars: cat|kitten,dog."
    ] = None
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Names per image.")] = 3
    format: Annotated[Literal["table", "csv", "jsonl"], "--format", "-f", "How to print."] = "table"
    backbone: common.AdapterBackbone = None
    device: common.Device = "auto"


def predict(options: PredictOptions, screen: Screen) -> None:
    """Classify images, among the trained class names or any others."""
    if options.format != "table" and screen.stderr:
        raise typer.BadParameter("--json - and --format both want standard output; choose one.")
    names = common.split_names(options.classes)

    import promptot
    from promptot.cli.result_tables import prediction_table
    from promptot.data import find_images

    paths = find_images(options.images)
    classifier = with_backbone(
        promptot.load, options.run, backbone=options.backbone, device=options.device
    )
    with progress_bar() as bar:
        count = Stages(bar).counter("images", len(paths))
        predictions = classifier.classify(paths, names, options.top_k, count)
    rows = [_as_json(prediction) for prediction in predictions]
    if options.format == "jsonl":
        for row in rows:
            typer.echo(json_text(row))
    elif options.format == "csv":
        _write_csv(predictions)
    else:
        screen.print(prediction_table(predictions))
    screen.result(rows)
    if all(prediction.problem for prediction in predictions):
        raise PromptotError("None of the images could be read.", fix="See the reasons above.")


def _as_json(prediction: Prediction) -> dict[str, Any]:
    return {
        "image": prediction.image,
        "class_names": list(prediction.class_names),
        "probabilities": [round(value, 6) for value in prediction.probabilities],
        "problem": prediction.problem,
        **({"none_of_these": _none_of_these(prediction)} if prediction.fit == "sigmoid" else {}),
    }


def _none_of_these(prediction: Prediction) -> bool | None:
    """Of an image that can't be read nothing is known."""
    return None if prediction.problem else prediction.none_of_these


def _write_csv(predictions: Sequence[Prediction]) -> None:
    from promptot.files.csv_text import csv_line

    can_be_none = any(p.fit == "sigmoid" for p in predictions)

    def write(cells: list[Any], prediction: Prediction) -> None:
        answer = _none_of_these(prediction)
        more = ["" if answer is None else str(answer).lower()] if can_be_none else []
        sys.stdout.write(csv_line([*cells, *more]))

    header = ["image", "rank", "class_name", "probability", "problem"]
    sys.stdout.write(csv_line([*header, *(["none_of_these"] if can_be_none else [])]))
    for p in predictions:
        ranked = enumerate(zip(p.class_names, p.probabilities, strict=True), start=1)
        for rank, (name, probability) in ranked:
            write([p.image, rank, name, f"{probability:.6f}", ""], p)
        if p.problem:
            write([p.image, "", "", "", p.problem], p)
