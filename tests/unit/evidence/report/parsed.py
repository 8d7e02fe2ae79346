"""A report as a browser sees it: tags, text, and one picture for all tests."""

from __future__ import annotations

from functools import cache
from html.parser import HTMLParser

import numpy as np

import fake_deployments as fakes
from segship.core.predictions import SemanticMap
from segship.evidence.records import Deployment
from segship.evidence.report import ExamplePicture, example_picture, render
from segship.scenes import generate

EVIL = """<script>alert("1")</script>'"><img src=x onerror=alert(2)>&amp;"""
VOID = {"meta", "link", "img", "rect", "line", "path", "circle"}


class Page(HTMLParser):
    """A parsed page: its tags with attributes, its text, and whether tags are balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @property
    def text(self) -> str:
        """All text, with one space for each gap."""
        return " ".join(" ".join(self.pieces).split())

    def first(self, tag: str) -> dict[str, str | None]:
        """Attributes of the first ``tag``."""
        return next(attributes for name, attributes in self.tags if name == tag)


@cache
def picture(name: str = "street.jpg", seed: int = 3, size: tuple[int, int] = (96, 128)) -> ExamplePicture:
    """A synthetic street on which the engine is two pixels off."""
    scene = generate(seed, size)
    off = SemanticMap(np.roll(scene.semantic, 2, axis=1))
    return example_picture(name, scene.image, SemanticMap(scene.semantic), off, fakes.CLASSES)


def page(deployment: Deployment, **more: object) -> Page:
    return Page(render(deployment, fakes.manifest(**more), [picture()]))
