"""A page of measurements, section by section: each is written as soon as it is measured, so an interruption loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Page:
    """A Markdown file: ``head``, then sections under titles of the second level."""

    file: Path
    head: str

    def measure(self, sections: Mapping[str, Callable[[], str]], only: str = "") -> None:
        """Measure the sections whose title holds ``only``; of the page before, keep the others, also those not asked for here."""
        kept = self.sections() if only else {}
        for title, measured in sections.items():
            if only in title:
                kept[title] = f"## {title}\n\n{measured().strip()}\n"
                self.file.write_text("\n".join([self.head, *kept.values()]))

    def sections(self) -> dict[str, str]:
        """The sections that the file holds now, by title."""
        parts = self.file.read_text().split("\n## ")[1:] if self.file.is_file() else []
        return {part.partition("\n")[0]: f"## {part.rstrip()}\n" for part in parts}
