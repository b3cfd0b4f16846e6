"""Choosing a device by name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest
import torch
from pydantic import BaseModel

from promptot.backbones import load_backbone
from promptot.devices import pick_device
from promptot.errors import PromptotError


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:1", "", "cuda:-1"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(PromptotError, match="Unknown device"):
        pick_device(name)


@pytest.mark.parametrize(
    ("cuda", "mps", "best"), [(2, False, "cuda"), (0, True, "mps"), (0, False, "cpu")]
)
def test_auto_takes_the_best(
    monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, best: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto").type == best
    if cuda:
        assert pick_device("cuda:1") == torch.device("cuda:1")
    for name, there in (("cuda:2", False), ("cuda", cuda > 0), ("mps", mps)):
        if not there:
            with pytest.raises(PromptotError, match=f"no device '{name}'.*--device cpu"):
                pick_device(name)


def test_backbones_are_loaded_to_a_device_by_name() -> None:
    best = pick_device("auto").type
    assert load_backbone("bundled:tiny", "auto").device.type == best
    assert load_backbone("bundled:tiny").device.type == best
    assert load_backbone("bundled:tiny", "cpu").device.type == "cpu"
    assert load_backbone("bundled:tiny", torch.device("cpu")).device.type == "cpu"
    with pytest.raises(PromptotError, match="no device 'cuda:999'"):
        load_backbone("bundled:tiny", "cuda:999")
    with pytest.raises(PromptotError, match="Unknown device 'gpu'"):
        load_backbone("bundled:tiny", "gpu")


def test_a_device_is_picked_automatically_everywhere() -> None:
    """Wherever a public function or class takes a device, that is the best there is."""
    found = {
        f"{module}.{name}": inspect.signature(thing).parameters["device"].default
        for module, name, thing in public_callables()
        if optional(thing, "device")
    }
    assert {"promptot.runs.classifier.load", "promptot.experiments.demo.run_demo"} <= set(found)
    assert {key: value for key, value in found.items() if value != "auto"} == {}


def test_every_command_picks_a_device_automatically() -> None:
    import typer

    from promptot.cli.app import app

    commands = typer.main.get_command(app).commands
    found = {
        name: option.default
        for name, command in commands.items()
        for option in command.params
        if option.name == "device"
    }
    assert {"demo", "fit", "predict"} <= set(found)
    assert set(found.values()) == {"auto"}


def optional(thing, name: str) -> bool:
    parameter = inspect.signature(thing).parameters.get(name)
    return parameter is not None and parameter.default is not inspect.Parameter.empty


def public_callables():
    rooms = ("backbones", "experiments", "inspection", "runs", "serving")
    for room in rooms:
        package = importlib.import_module(f"promptot.{room}")
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            for name, thing in vars(module).items():
                own = getattr(thing, "__module__", None) == module.__name__
                record = isinstance(thing, type) and issubclass(thing, BaseModel)
                if own and callable(thing) and not record and not name.startswith("_"):
                    yield module.__name__, name, thing
