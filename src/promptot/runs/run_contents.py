"""What a run folder holds, in memory."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from promptot.errors import PromptotError
from promptot.runs.adapter import Adapter, load_adapter
from promptot.runs.hub import adapter_folder
from promptot.runs.manifest import Manifest, find_manifest
from promptot.runs.run_folder import ADAPTER, writing
from promptot.training.training_log import Log, SavedLog


@dataclass(frozen=True, eq=False)
class RunContents:
    """What a run leaves but for its test; it pickles without any model.

    Attributes:
        adapter: what was learned, and its card.
        manifest: what it was made with; None of an adapter alone.
        logged: what was noted of each step and epoch, in memory or as a folder has it.
    """

    adapter: Adapter
    manifest: Manifest | None
    logged: Log | SavedLog = field(default_factory=Log)

    @property
    def log(self) -> Log:
        """A record a step and an epoch; empty where nothing was trained.

        Raises:
            PromptotError: its files are damaged.
        """
        return self.logged.log if isinstance(self.logged, SavedLog) else self.logged

    @classmethod
    def read(cls, folder: str | os.PathLike[str], manifest: Manifest | None = None) -> RunContents:
        """Those of a run folder, of an adapter folder, or of "hf-hub:user/name".

        Args:
            folder: see above.
            manifest: the folder's, where it has been read already.

        Raises:
            PromptotError: there is no adapter, or something is damaged.
        """
        adapter = load_adapter(adapter_folder(folder))
        try:
            manifest = manifest or find_manifest(Path(folder))
        except PromptotError as error:
            raise PromptotError(
                "The run's manifest is damaged.", fix="Load its adapter folder instead."
            ) from error
        return cls(adapter, manifest, SavedLog.read(Path(folder)))

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a run folder.

        Raises:
            PromptotError: it holds a run already, or can't be written.
        """
        with writing(Path(folder), overwrite) as work:
            self.write(work)

    def write(self, work: Path) -> None:
        """Write all files into a working folder."""
        self.logged.write(work)
        if self.manifest is not None:
            self.manifest.write(work)
        self.adapter.save(work / ADAPTER)
