"""Host names in requests and addresses to listen at."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    address = _address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


def own_names() -> frozenset[str]:
    """This machine's host name, in full and short, and as its local network knows it."""
    name = normal(socket.gethostname())
    short = name.partition(".")[0]
    return frozenset({name, short, f"{short}.local"} - {"", ".local"})


def is_ours(host: str, names: Collection[str], loopback_only: bool) -> bool:
    """Whether a request's host is one that the page answers to.

    A web site elsewhere can make its own *name* mean this machine (DNS rebinding), and then read
    what it gets. It can't do that with an address, so every address will do where the page listens
    to others; behind a router or in a container it need not be one that this machine knows.

    Args:
        host: as `host_of` gives it.
        names: host names to answer to, as `normal` gives them.
        loopback_only: whether nobody else can reach the page.

    Example:
        >>> is_ours("10.0.0.7", [], False), is_ours("10.0.0.7", [], True)
        (True, False)
        >>> is_ours("photos.example", ["photos.example"], True), is_ours("evil.example", [], False)
        (True, False)
    """
    host = normal(host)
    if is_loopback(host) or host in names:
        return True
    return not loopback_only and _address(host) is not None


def normal(host: str) -> str:
    """A host name as names are compared: small letters, no dot at the end.

    Example:
        >>> normal("Photos.Example.")
        'photos.example'
    """
    return host.strip().lower().rstrip(".")


def is_host(text: str) -> bool:
    """Whether a text is a host name or address, and nothing more.

    Example:
        >>> is_host("photos.example.org"), is_host("::1"), is_host("https://a.b"), is_host("a.b:80")
        (True, True, False, False)
    """
    name = re.fullmatch(r"[a-z0-9_][a-z0-9_.-]*", text.lower())
    return name is not None or _address(text) is not None


def host_of(netloc: str) -> str:
    """The host of "host:port", of an IPv6 address without its brackets; empty if it is not that.

    Example:
        >>> host_of("[::1]:8765"), host_of("localhost"), host_of(""), host_of("a.b@localhost")
        ('::1', 'localhost', '', '')
    """
    if re.fullmatch(r"(\[[^\[\]\s@/?#,]*\]|[^\[\]\s@/?#,:]*)(:[0-9]*)?", netloc) is None:
        return ""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
