"""The four protocols: which cells a comparison has, and the figures that sum them up."""

from __future__ import annotations

from collections.abc import Mapping

from promptot.experiments.protocols.base_to_novel import BaseToNovel
from promptot.experiments.protocols.cross_dataset import CrossDataset
from promptot.experiments.protocols.domain_generalization import DomainGeneralization
from promptot.experiments.protocols.few_shot import FewShot
from promptot.experiments.protocols.protocol import Metric, Protocol

__all__ = ["PROTOCOLS", "Metric", "Protocol"]

PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (BaseToNovel(), CrossDataset(), DomainGeneralization(), FewShot())
}
