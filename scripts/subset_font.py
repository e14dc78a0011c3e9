"""Cut the pictures' font out of Noto Sans CJK: every character that labels are likely to hold, in 1.4 MB.

    python scripts/subset_font.py NotoSansCJK-Regular.ttc

Needs fontTools, which comes with matplotlib. Noto Sans CJK is published at github.com/notofonts/noto-cjk and is in
Debian's fonts-noto-cjk. Its licence, the SIL Open Font License 1.1, lies beside the result; it names no reserved font
name, and the family is renamed all the same, so that a whole Noto Sans CJK on the same machine is not mistaken for it.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

FAMILY = "Translate Sans"
OUTPUT = Path(__file__).resolve().parent.parent / "translate" / "report" / "fonts" / "TranslateSans.otf"
JAPANESE = 0
"""The face of the collection whose Chinese characters have their Japanese shapes."""

RANGES = (
    (0x20, 0x7F),  # ASCII
    (0xA0, 0x250),  # Latin of European languages
    (0x370, 0x460),  # Greek, Cyrillic
    (0x1E00, 0x1F00),  # Latin of Vietnamese and others
    (0x2010, 0x2070),  # punctuation
    (0x20AC, 0x20AD),  # euro
    (0x2190, 0x2194),  # arrows
    (0x25A0, 0x25A2),  # squares
    (0x3000, 0x3020),  # CJK punctuation
    (0x3041, 0x3100),  # kana
    (0x3131, 0x318F),  # Hangul letters
    (0xFF01, 0xFFEF),  # full and half width forms
)
PLAIN_FINALS = (0, 1, 4, 7, 8, 16, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27)
"""Hangul final consonants that are not clusters; syllables with a cluster are taken where KS X 1001 has them."""
MORE = "뷁傲刹哺喩嗅嘲毀彙恣惧慄憬拉摯曖楷鬱璧瘍箋籠緻羞訃詮諧貪踪辣錮綺薔薇雹騙躊躇痒瞼蕾撥嬌"
"""A syllable that only the internet knows, then school and everyday characters beyond JIS X 0208's first level."""


def in_charset(encoding: str, first_rows: range) -> set[int]:
    """The characters that a two-byte character set has in the given rows."""
    found = set()
    for row in first_rows:
        for cell in range(0xA1, 0xFF):
            text = bytes((row, cell)).decode(encoding, errors="ignore")
            found |= {ord(character) for character in text}
    return found


def characters() -> set[int]:
    """Everything the font shall hold."""
    syllables = {0xAC00 + block * 28 + final for block in range(19 * 21) for final in PLAIN_FINALS}
    korean = in_charset("euc_kr", range(0xB0, 0xC9))
    japanese = in_charset("euc_jp", range(0xB0, 0xD0))
    ranges = {code for first, end in RANGES for code in range(first, end)}
    return ranges | syllables | korean | japanese | {ord(character) for character in MORE}


def cut(source: Path, wanted: Iterable[int]) -> TTFont:
    """The font with the wanted characters only, under its new name."""
    options = subset.Options()
    options.font_number = JAPANESE
    options.hinting = False
    options.layout_features = []
    options.notdef_outline = True
    options.name_IDs = ["*"]
    options.drop_tables += ["vhea", "vmtx", "VORG", "BASE", "GPOS", "GSUB", "GDEF"]
    font = subset.load_font(str(source), options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=wanted)
    cutter.subset(font)
    _rename(font)
    return font


def _rename(font: TTFont) -> None:
    compact = FAMILY.replace(" ", "")
    names = {1: FAMILY, 3: f"{compact}-Regular", 4: FAMILY, 6: f"{compact}-Regular", 16: FAMILY}
    for record in font["name"].names:
        if record.nameID in names:
            record.string = names[record.nameID]
    top = font["CFF "].cff
    top.fontNames[0] = f"{compact}-Regular"
    top.topDictIndex[0].FullName = top.topDictIndex[0].FamilyName = FAMILY
    font["head"].modified = font["head"].created  # the same bytes every time
    font.recalcTimestamp = False


def main() -> None:
    """Read the collection, write the font."""
    parser = argparse.ArgumentParser(description="Cut the pictures' font out of Noto Sans CJK.")
    parser.add_argument("source", type=Path, help="NotoSansCJK-Regular.ttc")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where to write the font")
    arguments = parser.parse_args()
    cut(arguments.source, characters()).save(arguments.output)


if __name__ == "__main__":
    main()
