"""A host is a name or an address with a port, and nothing beside it."""

from __future__ import annotations

import pytest

from promptot.serving.hosts import host_of, is_ours


@pytest.mark.parametrize(
    "netloc",
    [
        "evil.example:8765@127.0.0.1",
        "evil@127.0.0.1:8765",
        "127.0.0.1:8765, evil.example",
        "127.0.0.1, evil.example",
        "127.0.0.1:port",
        "127.0.0.1/evil.example",
        "127.0.0.1#evil.example",
        "127.0.0.1 evil.example",
        "[::1]evil.example",
        "evil.example[::1]",
        "::1",
    ],
)
def test_what_stands_beside_an_address_makes_it_none(netloc: str) -> None:
    assert host_of(netloc) == ""
    assert not is_ours(host_of(netloc), ["photos.example"], loopback_only=False)


@pytest.mark.parametrize(
    ("netloc", "host"),
    [
        ("127.0.0.1:8765", "127.0.0.1"),
        ("[fe80::1]:80", "fe80::1"),
        ("[::1]", "::1"),
        ("Photos.Example.:443", "photos.example."),
        ("localhost:", "localhost"),
    ],
)
def test_names_and_addresses_stay(netloc: str, host: str) -> None:
    assert host_of(netloc) == host
