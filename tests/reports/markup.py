"""Pages and figures taken apart, with the checks that hold for each of them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

SVG = "{http://www.w3.org/2000/svg}"
EMPTY_ELEMENTS = {"meta", "img", "wbr", "br", "hr", "link", "input"}


def parsed(svg):
    """The figure's root, after the checks that hold for each of them."""
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert len(root.get("aria-label")) > 10
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    inner = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    assert inner <= set(ids)
    assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]
    assert "#0a0b" not in svg
    assert not list(root.iter(f"{SVG}style"))
    colours = set(re.findall(r"(?:fill|stroke): (#\w+)", svg))
    assert not colours, f"{colours} would not follow the page's theme"
    return root


def texts(root):
    return [element.text for element in root.iter(f"{SVG}text")]


class Page(HTMLParser):
    """A page taken apart; elements that don't nest are an error."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"{tag}: an attribute twice"
        if tag not in EMPTY_ELEMENTS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join("".join(self.texts).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]
