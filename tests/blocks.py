"""The generated parts of pages: what stands between two comments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a page between two lines, each of which the page holds once."""

    page: Path
    begin: str
    end: str

    def _around(self) -> tuple[str, str, str]:
        text = self.page.read_text(encoding="utf-8")
        assert text.count(self.begin) == text.count(self.end) == 1, f"{self.page.name} needs {self.begin} … {self.end}"
        head, _, rest = text.partition(self.begin)
        inner, _, tail = rest.partition(self.end)
        return head, inner.strip("\n"), tail

    def read(self) -> str:
        """What the page holds now."""
        return self._around()[1]

    def write(self, text: str) -> None:
        """Put another text there."""
        head, _, tail = self._around()
        self.page.write_text(f"{head}{self.begin}\n{text.strip(chr(10))}\n{self.end}{tail}", encoding="utf-8")
