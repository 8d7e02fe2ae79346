"""report.html: everything that deploy found out, on one page that a person reads. A pure function of records."""

from __future__ import annotations

from segship.evidence.report.page import render
from segship.evidence.report.pictures import ExamplePicture, example_picture

__all__ = ["ExamplePicture", "example_picture", "render"]
