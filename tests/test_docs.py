"""What the documentation shows is what the code is."""

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "docs" / name for name in ("attention.md", "attention.ko.md")]
SOURCES = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "translate" / "models").glob("*.py"))]


def unindented(text: str) -> str:
    return textwrap.dedent(text).strip()


def occurs(piece: str) -> bool:
    """Whether the lines of a piece follow each other in a source, whatever their common indentation."""
    lines = unindented(piece).split("\n")
    for source in SOURCES:
        code = source.split("\n")
        for first in range(len(code) - len(lines) + 1):
            if unindented("\n".join(code[first : first + len(lines)])) == "\n".join(lines):
                return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pieces_of_code_are_cut_from_the_models(page: Path) -> None:
    pieces = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(pieces) >= 10
    assert not [piece for piece in pieces if not occurs(piece)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#]+)", prose)
    assert targets
    assert not [target for target in targets if "://" not in target and not (page.parent / target).exists()]


def test_both_languages_have_the_same_code_and_the_same_tables() -> None:
    english, korean = (page.read_text(encoding="utf-8") for page in PAGES)
    for pattern in (r"```python\n.*?```", r"<!-- begin: \w+ -->"):
        assert re.findall(pattern, english, re.DOTALL) == re.findall(pattern, korean, re.DOTALL)
