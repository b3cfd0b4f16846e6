"""What a benchmark was asked for, checked, as the scenarios and methods that it is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from promptot.backbones import Backbone, load_backbone
from promptot.data.readers import BUNDLED
from promptot.data.shot_lists import read_shot_list, shot_list_name
from promptot.devices import pick_device
from promptot.errors import PromptotError, nearest
from promptot.experiments.cell_progress import BenchmarkListener
from promptot.experiments.cells import Cell, make_cells
from promptot.experiments.executor import Executor
from promptot.experiments.methods import Method, parse_methods
from promptot.experiments.protocols import PROTOCOLS, Protocol
from promptot.experiments.published_settings import ReadAt
from promptot.experiments.scenarios import (
    SPLIT,
    Scenario,
    Shares,
    Source,
    Split,
    Unit,
    load_sources,
)
from promptot.experiments.settings_listing import CellSettings, describe_cell
from promptot.experiments.suite import load_suite, suite_sources
from promptot.recipes.recipe_files import Overrides, as_overrides

METHODS = "zero-shot,ivlp,prompt-ot"
SHOTS = 16
FEW_SHOTS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class BenchmarkSettings:
    """A benchmark as it was asked for. Its fields are the arguments of `benchmark`."""

    protocol: str
    out: str | Path
    methods: str = METHODS
    tasks: Sequence[str] = ()
    sources: Sequence[str] = ()
    seeds: Sequence[int] = (1, 2, 3)
    shots: Sequence[int] | None = None
    overrides: Overrides = ()
    control: str | None = None
    split: Split = "test"
    suite: str | None = None
    root: str | Path | None = None
    unverified: bool = False
    shot_lists: str | Path | None = None
    read_at: ReadAt = "last"
    split_shares: Shares = SPLIT
    backbone: str | Backbone = "bundled:tiny"
    device: str = "auto"
    precision: str = "fp32"
    workers: int = 0
    cache: str | Path | None = None
    report_only: bool = False
    jobs: int = 1
    executor: Executor | None = None
    listener: BenchmarkListener | None = None

    def __post_init__(self) -> None:
        if self.jobs < 1 or (self.jobs > 1 and isinstance(self.backbone, Backbone)):
            raise PromptotError(
                f"{self.jobs} jobs are not possible with this backbone.",
                fix="Give one or more, and the backbone's name: each process loads its own.",
            )

    @property
    def folder(self) -> Path:
        """`out` as a path."""
        return Path(self.out)

    def load_backbone(self) -> Backbone:
        """The backbone on its device.

        Raises:
            PromptotError: there is none of that name, or no such device.
        """
        if isinstance(self.backbone, Backbone):
            return self.backbone
        return load_backbone(self.backbone, pick_device(self.device), self.precision)


@dataclass(frozen=True)
class PublishedFigures:
    """What was published of a method that takes no part: figures in 0..1 by metric, and a note."""

    name: str
    figures: Mapping[str, float]
    note: str = ""


@dataclass(frozen=True, eq=False)
class Plan:
    """What a benchmark consists of.

    Attributes:
        protocol: how methods are compared.
        split: whose images are tested.
        scenarios, methods, seeds: of its cells.
        control: label of the method to compare with.
        published: label -> published figures by metric, of the methods that have them.
        elsewhere: what was published of the same tasks by methods that take no part.
        small_print: what must be known to compare with published figures, a sentence each.
        notes: what must be known of the data, a sentence each.
    """

    protocol: Protocol
    split: Split
    scenarios: Sequence[Scenario]
    methods: Sequence[Method]
    seeds: Sequence[int]
    control: str
    published: Mapping[str, Mapping[str, float]]
    elsewhere: Sequence[PublishedFigures]
    small_print: Sequence[str]
    notes: Sequence[str]

    @property
    def by_unit(self) -> dict[Unit, Scenario]:
        """The scenarios by what tells them apart."""
        return {scenario.unit: scenario for scenario in self.scenarios}

    def cells(self, backbone: Backbone) -> list[Cell]:
        """All cells, see `make_cells`."""
        return make_cells(
            self.protocol.name, self.scenarios, self.methods, self.seeds, self.split, backbone
        )


def make_plan(settings: BenchmarkSettings) -> Plan:
    """Check what was asked for and read its tasks.

    Raises:
        PromptotError: it can't be done, and why.
    """
    chosen = _protocol(settings)
    methods = _methods(settings)
    control = _control(methods, settings.control)
    sources, trained, notes = _sources(settings)
    counts = settings.shots or _default_shots(sources, chosen.several_shots)
    _check_shots(counts, chosen)
    scenarios = chosen.scenarios(sources, trained, counts, settings.split)
    if settings.shot_lists is not None:
        lists = Path(settings.shot_lists)
        scenarios = [_with_lists(scenario, lists, settings.seeds, notes) for scenario in scenarios]
    _check_folder(settings)
    labels = [method.label for method in methods]
    return Plan(
        chosen,
        settings.split,
        scenarios,
        methods,
        settings.seeds,
        control,
        *_published(settings, labels),
        notes,
    )


def list_settings(settings: BenchmarkSettings) -> list[CellSettings]:
    """The settings of every cell that a benchmark of a suite has; no data are read.

    Args:
        settings: its `root`, `split` and `unverified` have no effect.

    Raises:
        PromptotError: there is no suite, or it can't be done.
    """
    chosen = _protocol(settings)
    if settings.suite is None:
        raise PromptotError(
            "Only a suite has published settings.",
            fix="Add --suite coop; `promptot recipes NAME` shows the values of a recipe.",
        )
    suite = load_suite(settings.suite)
    counts = settings.shots or (FEW_SHOTS if chosen.several_shots else (SHOTS,))
    _check_shots(counts, chosen)
    trained = suite.trained(settings.protocol)
    sets = suite.sets(settings.protocol, settings.tasks)
    methods, cells = _methods(settings), []
    for public_set in sets:
        if trained and public_set.name not in trained:
            continue
        for shots in counts:
            here = [method.at(public_set.name, shots) for method in methods]
            cells += [
                describe_cell(method, public_set.name, public_set.template, shots, seed)
                for seed in settings.seeds
                for method in here
            ]
    return cells


def _protocol(settings: BenchmarkSettings) -> Protocol:
    """The protocol of a benchmark whose seeds can be used."""
    if settings.protocol not in PROTOCOLS:
        raise PromptotError(
            f"Unknown protocol '{settings.protocol}'.", fix=nearest(settings.protocol, PROTOCOLS)
        )
    if (
        not settings.seeds
        or len(set(settings.seeds)) < len(settings.seeds)
        or min(settings.seeds) < 0
    ):
        raise PromptotError(
            f"The seeds {', '.join(map(str, settings.seeds))} can't be used.",
            fix="Give different numbers from 0 up, such as --seeds 1,2,3.",
        )
    return PROTOCOLS[settings.protocol]


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


def _methods(settings: BenchmarkSettings) -> list[Method]:
    overrides = as_overrides(settings.overrides)
    if settings.suite is None:
        if settings.read_at != "last":
            raise PromptotError(
                "Published epochs to read belong to a suite.",
                fix="Add --suite coop, or choose an epoch with --set evaluate_epoch=…",
            )
        return parse_methods(settings.methods, overrides)
    suite = load_suite(settings.suite)
    return suite.methods(settings.protocol, settings.methods, overrides, settings.read_at)


def _sources(settings: BenchmarkSettings) -> tuple[list[Source], Sequence[str], list[str]]:
    """The tasks, those of them to train on (none: all), and what must be known of them."""
    if settings.suite is None:
        if settings.root is not None or settings.shot_lists is not None:
            raise PromptotError(
                "--root and --shot-lists belong to a suite.", fix="Add --suite coop."
            )
        sources = load_sources(settings.tasks, settings.split_shares)
        notes = [f"{source.name}: {note}" for source in sources for note in source.task.notes]
        return sources, settings.sources, notes
    if settings.root is None:
        raise PromptotError(
            f"The suite '{settings.suite}' needs its data.",
            fix="Say with --root which folder holds the data sets.",
        )
    if settings.split_shares != SPLIT:
        raise PromptotError(
            "A suite has its own splits.", fix="Leave --split-shares out, or leave --suite out."
        )
    if settings.sources:
        raise PromptotError(
            "A suite has its own source.", fix="Leave --sources out, or leave --suite out."
        )
    suite = load_suite(settings.suite)
    return suite_sources(
        suite, settings.protocol, settings.root, settings.tasks, settings.unverified
    )


def _published(
    settings: BenchmarkSettings, labels: Sequence[str]
) -> tuple[dict[str, Mapping[str, float]], list[PublishedFigures], Sequence[str]]:
    """Published figures by method, those of methods that take no part, and the small print.

    There are figures where the suite has them and all its tasks take part, small print always.
    """
    if settings.suite is None or settings.split != "test":
        return {}, [], ()
    suite = load_suite(settings.suite)
    published = suite.published.get(settings.protocol)
    if published is None or settings.tasks:
        return {}, [], suite.small_print

    def shares(row: Sequence[float | None]) -> Mapping[str, float]:
        given = zip(published.metrics, row, strict=True)
        return {metric: figure / 100 for metric, figure in given if figure is not None}

    figures = {name: shares(row) for name, row in published.methods.items()}
    elsewhere = [PublishedFigures(n, own) for n, own in figures.items() if n not in labels]
    elsewhere += [PublishedFigures(r.name, shares(r.figures), r.note) for r in published.others]
    return figures, elsewhere, suite.small_print


def _with_lists(
    scenario: Scenario, folder: Path, seeds: Sequence[int], notes: list[str]
) -> Scenario:
    """The scenario with the shot lists that are in the folder."""
    if not folder.is_dir():
        raise PromptotError(f"There is no folder of shot lists '{folder}'.", fix="Check the path.")
    paths = {seed: folder / shot_list_name(scenario.task, scenario.shots, seed) for seed in seeds}
    lists = {seed: read_shot_list(path) for seed, path in paths.items() if path.is_file()}
    drawn = [str(seed) for seed in seeds if seed not in lists]
    if drawn:
        notes.append(
            f"{scenario.task}, K = {scenario.shots}: no list for seed {', '.join(drawn)}; "
            "drawn here."
        )
    return replace(scenario, lists=lists)


def _check_folder(settings: BenchmarkSettings) -> None:
    """Refuse a place where nothing can be written, or where it would become a class."""
    folder = settings.folder
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise PromptotError(f"'{place}' is a file.", fix="Choose another place for --out.")
    place = folder.resolve()
    inside = [task for task in settings.tasks if not task.startswith(BUNDLED)]
    if settings.suite is not None:
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
    counts = (Counter(e.label for e in source.task.train).values() for source in sources)
    most = max((most for own in counts for most in own), default=0)
    return tuple(k for k in FEW_SHOTS if k <= most) or FEW_SHOTS[:1]
