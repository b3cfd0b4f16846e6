"""What a benchmark was asked for, checked, as the trials and methods that it is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from promptot.data.readers import BUNDLED
from promptot.data.shot_lists import ShotList, read_shot_list, shot_list_name
from promptot.errors import PromptotError, nearest
from promptot.experiments.methods import Method, parse_methods
from promptot.experiments.protocol import PROTOCOLS, Protocol
from promptot.experiments.published_settings import ReadAt
from promptot.experiments.settings_listing import CellSettings, describe_cell
from promptot.experiments.suite import PublishedRow, load_suite, suite_sources
from promptot.experiments.trials import SPLIT, Shares, Source, Split, Trial, load_sources

METHODS = "zero-shot,ivlp,prompt-ot"
SHOTS = 16
FEW_SHOTS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Request:
    """A benchmark as it was asked for; see `run_benchmark`."""

    protocol: str
    out: Path
    methods: str = METHODS
    tasks: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (1, 2, 3)
    shots: tuple[int, ...] | None = None
    overrides: tuple[str, ...] = ()
    control: str | None = None
    split: Split = "test"
    suite: str | None = None
    root: Path | None = None
    unverified: bool = False
    shot_lists: Path | None = None
    read_at: ReadAt = "last"
    split_shares: Shares = SPLIT


@dataclass(frozen=True)
class Elsewhere:
    """What was published of the tasks of a plan, beside the figures of its own methods.

    Attributes:
        metrics: keys, in the order of the figures of a row.
        rows: of methods that take no part.
        small_print: what must be known to compare, a sentence each.
    """

    metrics: Sequence[str] = ()
    rows: Sequence[PublishedRow] = ()
    small_print: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Plan:
    """What a benchmark consists of.

    Attributes:
        protocol: how methods are compared.
        trials, methods, seeds: of its cells.
        control: label of the method to compare with.
        published: label -> published figures by metric, of the methods that have them.
        elsewhere: what else was published of the same tasks.
        notes: what must be known of the data, a sentence each.
    """

    protocol: Protocol
    trials: Sequence[Trial]
    methods: Sequence[Method]
    seeds: Sequence[int]
    control: str
    published: Mapping[str, Mapping[str, float]]
    elsewhere: Elsewhere
    notes: Sequence[str]


def make_plan(request: Request) -> Plan:
    """Check a request and read its tasks.

    Raises:
        PromptotError: it can't be done, and why.
    """
    chosen = _protocol(request)
    methods = _methods(request)
    control = _control(methods, request.control)
    sources, trained, notes = _sources(request)
    counts = request.shots or _default_shots(sources, chosen.several_shots)
    _check_shots(counts, chosen)
    trials = chosen.trials(sources, trained, counts, request.split)
    if request.shot_lists is not None:
        trials = [_with_lists(trial, request, notes) for trial in trials]
    _check_folder(request)
    labels = [method.label for method in methods]
    published, elsewhere = _published(request, labels)
    return Plan(chosen, trials, methods, request.seeds, control, published, elsewhere, notes)


def list_settings(request: Request) -> list[CellSettings]:
    """The settings of every cell that a benchmark of a suite has; no data are read.

    Args:
        request: its `root`, `split` and `unverified` have no effect.

    Raises:
        PromptotError: there is no suite, or the request can't be done.
    """
    chosen = _protocol(request)
    if request.suite is None:
        raise PromptotError(
            "Only a suite has published settings.",
            fix="Add --suite coop; `promptot recipes NAME` shows the values of a recipe.",
        )
    suite = load_suite(request.suite)
    counts = request.shots or (FEW_SHOTS if chosen.several_shots else (SHOTS,))
    _check_shots(counts, chosen)
    trained = suite.trained(request.protocol)
    sets = suite.sets(request.protocol, request.tasks)
    cells = []
    for facts in sets:
        if trained and facts.name not in trained:
            continue
        for shots in counts:
            here = [method.at(facts.name, shots) for method in _methods(request)]
            cells += [
                describe_cell(method, facts.name, facts.template, shots, seed)
                for seed in request.seeds
                for method in here
            ]
    return cells


def _protocol(request: Request) -> Protocol:
    """The protocol of a request whose seeds can be used."""
    if request.protocol not in PROTOCOLS:
        raise PromptotError(
            f"Unknown protocol '{request.protocol}'.", fix=nearest(request.protocol, PROTOCOLS)
        )
    if not request.seeds or len(set(request.seeds)) < len(request.seeds) or min(request.seeds) < 0:
        raise PromptotError(
            f"The seeds {', '.join(map(str, request.seeds))} can't be used.",
            fix="Give different numbers from 0 up, such as --seeds 1,2,3.",
        )
    return PROTOCOLS[request.protocol]


def _check_shots(counts: Sequence[int], protocol: Protocol) -> None:
    if min(counts) < 1 or len(set(counts)) < len(counts):
        raise PromptotError(
            f"The shots {', '.join(map(str, counts))} can't be used.",
            fix="Give different numbers from 1 up, such as --shots 1,2,4.",
        )
    if len(counts) > 1 and not protocol.several_shots:
        raise PromptotError(
            f"{protocol.name} takes one number of shots.", fix="Compare several with few-shot."
        )


def _methods(request: Request) -> list[Method]:
    if request.suite is None:
        if request.read_at != "last":
            raise PromptotError(
                "Published epochs to read belong to a suite.",
                fix="Add --suite coop, or choose an epoch with --set evaluate_epoch=…",
            )
        return parse_methods(request.methods, request.overrides)
    suite = load_suite(request.suite)
    return suite.methods(request.protocol, request.methods, request.overrides, request.read_at)


def _sources(request: Request) -> tuple[list[Source], Sequence[str], list[str]]:
    """The tasks, those of them to train on (none: all), and what must be known of them."""
    if request.suite is None:
        if request.root is not None or request.shot_lists is not None:
            raise PromptotError(
                "--root and --shot-lists belong to a suite.", fix="Add --suite coop."
            )
        sources = load_sources(request.tasks, request.split_shares)
        notes = [f"{source.name}: {note}" for source in sources for note in source.task.notes]
        return sources, request.sources, notes
    if request.root is None:
        raise PromptotError(
            f"The suite '{request.suite}' needs its data.",
            fix="Say with --root which folder holds the data sets.",
        )
    if request.split_shares != SPLIT:
        raise PromptotError(
            "A suite has its own splits.", fix="Leave --split-shares out, or leave --suite out."
        )
    if request.sources:
        raise PromptotError(
            "A suite has its own source.", fix="Leave --sources out, or leave --suite out."
        )
    suite = load_suite(request.suite)
    return suite_sources(suite, request.protocol, request.root, request.tasks, request.unverified)


def _published(
    request: Request, labels: Sequence[str]
) -> tuple[dict[str, dict[str, float]], Elsewhere]:
    """Published figures in 0..1, and what else was published of the same tasks.

    There are figures where the suite has them and all its tasks take part, small print always.
    """
    if request.suite is None or request.split != "test":
        return {}, Elsewhere()
    suite = load_suite(request.suite)
    published = suite.published.get(request.protocol)
    if published is None or request.tasks:
        return {}, Elsewhere(small_print=suite.small_print)
    figures = {
        label: {metric: figure / 100 for metric, figure in zip(published.metrics, row, strict=True)}
        for label, row in published.methods.items()
    }
    absent = [
        PublishedRow(name=name, figures=list(row))
        for name, row in published.methods.items()
        if name not in labels
    ]
    rows = [*absent, *published.others]
    return figures, Elsewhere(published.metrics, rows, suite.small_print)


def _with_lists(trial: Trial, request: Request, notes: list[str]) -> Trial:
    """The trial with the shot lists that are in the folder."""
    assert request.shot_lists is not None
    if not request.shot_lists.is_dir():
        raise PromptotError(
            f"There is no folder of shot lists '{request.shot_lists}'.", fix="Check the path."
        )
    lists: dict[int, ShotList] = {}
    for seed in request.seeds:
        path = request.shot_lists / shot_list_name(trial.task, trial.shots, seed)
        if path.is_file():
            lists[seed] = read_shot_list(path)
    drawn = [str(seed) for seed in request.seeds if seed not in lists]
    if drawn:
        notes.append(
            f"{trial.task}, K = {trial.shots}: no list for seed {', '.join(drawn)}; drawn here."
        )
    return replace(trial, lists=lists)


def _check_folder(request: Request) -> None:
    """Refuse a place where nothing can be written, or where it would become a class."""
    folder = request.out
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise PromptotError(f"'{place}' is a file.", fix="Choose another place for --out.")
    place = folder.resolve()
    inside = [task for task in request.tasks if not task.startswith(BUNDLED)]
    if request.suite is not None:
        inside = []  # its folders have a layout of their own, where another folder is no class
    for task in inside:
        if Path(task).resolve() in (place, *place.parents):
            raise PromptotError(
                f"The folder '{folder}' lies in the image folder '{task}', where folders are "
                "classes.",
                fix="Choose a place outside it.",
            )


def _control(methods: Sequence[Method], wanted: str | None) -> str:
    labels = [method.label for method in methods]
    if wanted is None:
        return "pointwise" if "pointwise" in labels else labels[0]
    if wanted not in labels:
        raise PromptotError(f"The control '{wanted}' takes no part.", fix=nearest(wanted, labels))
    return wanted


def _default_shots(sources: Sequence[Source], several: bool) -> tuple[int, ...]:
    if not several:
        return (SHOTS,)
    most = max(max(Counter(e.label for e in s.task.train).values()) for s in sources)
    return tuple(k for k in FEW_SHOTS if k <= most) or FEW_SHOTS[:1]
