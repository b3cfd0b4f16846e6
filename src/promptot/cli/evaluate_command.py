"""`promptot evaluate`."""

from __future__ import annotations

from promptot.cli import common_options as common
from promptot.cli.console import Screen, in_stages, show_notes, with_backbone


class EvaluateOptions(common.Options):
    """What `promptot evaluate` takes."""

    run: common.RunFolder
    data: common.Data
    names: common.Names = None
    keep_same_names: common.KeepSameNames = False
    backbone: common.AdapterBackbone = None
    computing: common.Computing


def evaluate(options: EvaluateOptions, screen: Screen) -> None:
    """Test a run on images: the test split, or every image that was not trained on."""
    from promptot.cli.result_tables import score_table
    from promptot.runs.evaluating import evaluate as evaluate_run

    settings = options.keywords("run", "data")
    result = with_backbone(in_stages(evaluate_run), options.run, options.data, **settings)
    show_notes(screen, result.notes)
    screen.skipped(result.skipped)
    if result.left_out is None:
        screen.print(
            "[yellow]There is no manifest beside the adapter:[/] images that it was trained on, if "
            "any are among these, were tested too."
        )
    elif result.left_out:
        screen.print(f"Left out because the run was trained on them: {result.left_out} images.")
    screen.print(score_table(result.scores))
    screen.result(result.as_json())
