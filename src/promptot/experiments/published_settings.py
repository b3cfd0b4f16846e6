"""Published settings of a method by protocol, data set and number of shots, as a suite has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ReadAt = Literal["last", "published"]
"""Which epoch's prompts are tested: the last one's, or those that the published figures are of."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Case(_Part):
    """What differs for some data sets or numbers of shots.

    Attributes:
        data: keys of data sets; none stands for all.
        shots: images per class; none stands for any number.
        values: overrides of the recipe.
    """

    data: list[str] = []
    shots: list[int] = []
    values: list[str]

    def fits(self, data_set: str, shots: int | None) -> bool:
        """Whether it is about this data set and number of shots."""
        here = not self.data or data_set in self.data
        return here and (not self.shots or shots in self.shots)


class MethodSettings(_Part):
    """What was published for a method in a protocol.

    Attributes:
        values: overrides of the recipe, for all data sets.
        cases: overrides that follow for some; of several that fit the last one wins.
        published_epoch: the epoch that the published figures are of; None: the last one.
        note: what must be known of these settings.
    """

    values: list[str] = []
    cases: list[Case] = []
    published_epoch: int | None = Field(default=None, ge=1)
    note: str = ""


@dataclass(frozen=True)
class Settings:
    """The settings of one cell.

    Attributes:
        overrides: of the recipe.
        published: whether they were published for this method, protocol, data set and number of
            shots. Otherwise the recipe's own values run.
        note: what must be known of them, or why they are none.
        published_epoch: the epoch that published figures are of; None: the last one.
    """

    overrides: tuple[str, ...] = ()
    published: bool = False
    note: str = ""
    published_epoch: int | None = None


class SettingsTable(_Part):
    """Method -> protocol -> what was published; the part of a suite that says it.

    Attributes:
        settings: by the names of methods and protocols.
        variants: method -> unpublished variants of it, which are read at its epoch.
        shots: protocol -> numbers of shots that anything was published for.
    """

    settings: Mapping[str, Mapping[str, MethodSettings]]
    variants: Mapping[str, list[str]] = {}
    shots: Mapping[str, list[int]] = {}

    def resolve(
        self,
        method: str,
        protocol: str,
        data_set: str,
        shots: int | None,
        read_at: ReadAt = "last",
    ) -> Settings:
        """The settings of one cell.

        Args:
            method: name of a shipped recipe; a file has no published settings.
            protocol: name.
            data_set: key of the data set that is trained on.
            shots: images per class; None for what learns from none.
            read_at: which epoch's prompts are tested.
        """
        found = self.settings.get(method, {}).get(protocol)
        if found is None:
            return self._variant(method, protocol, read_at)
        overrides = list(found.values)
        for case in found.cases:
            if case.fits(data_set, shots):
                overrides += case.values
        published, note = True, found.note
        if shots is not None and shots not in self.shots.get(protocol, [shots]):
            known = ", ".join(map(str, self.shots[protocol]))
            published, note = False, f"published for {known} shots"
        overrides += _reading(found, read_at)
        return Settings(tuple(overrides), published, note, found.published_epoch)

    def _variant(self, method: str, protocol: str, read_at: ReadAt) -> Settings:
        """An unpublished method: the recipe's own values, read where what it varies is read."""
        whole = next((name for name, own in self.variants.items() if method in own), None)
        found = None if whole is None else self.settings.get(whole, {}).get(protocol)
        overrides = () if found is None else tuple(_reading(found, read_at))
        return Settings(overrides, note=f"read as {whole} is" if overrides else "")


def _reading(found: MethodSettings, read_at: ReadAt) -> Sequence[str]:
    if read_at == "last" or found.published_epoch is None:
        return ()
    return (f"evaluate_epoch={found.published_epoch}",)
