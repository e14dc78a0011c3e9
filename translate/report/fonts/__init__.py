"""The font of the pictures: a subset of Noto Sans CJK under the SIL Open Font License (OFL.txt).

It has the letters of European languages, Hangul, kana and the common Chinese characters of Japanese, so that labels
are legible on a machine without fonts. Pictures fall back on matplotlib's DejaVu Sans for what it lacks.
"""

import base64
import io
from functools import cache
from pathlib import Path
from typing import Any

from translate.report.words import WORD_START

FAMILY = "Translate Sans"
FILE = Path(__file__).with_name("TranslateSans.otf")
MISSING = "□"
FALLBACK = "DejaVu Sans"
"""Comes with matplotlib."""


@cache
def families() -> tuple[str, ...]:
    """The names matplotlib knows the fonts by, the first asked first; makes ours known to it."""
    from matplotlib import font_manager

    font_manager.fontManager.addfont(FILE)
    return (FAMILY, FALLBACK)


def printable(text: str) -> str:
    """The text as a label: a box for each control character, a thin underscore for SentencePiece's mark of a word."""
    characters = (character if character.isprintable() else MISSING for character in text)
    return "".join(characters).replace(WORD_START, "_")


def embedded(text: str) -> str:
    """CSS that brings along the part of the font that a text needs, whatever fonts its reader has."""
    from fontTools import subset

    options = subset.Options()
    options.flavor = "woff"
    options.desubroutinize = True
    options.notdef_outline = True
    font: Any = subset.load_font(str(FILE), options)
    cutter = subset.Subsetter(options)
    cutter.populate(text=text)
    cutter.subset(font)
    font.recalcTimestamp = False
    buffer = io.BytesIO()
    subset.save_font(font, buffer, options)
    font.close()
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'@font-face {{ font-family: "{FAMILY}"; src: url(data:font/woff;base64,{data}) format("woff"); }}'
