"""How much room a text takes: Korean, Chinese and Japanese characters are twice as wide as Latin ones."""

import unicodedata


def ems(text: str) -> float:
    """About how wide a text is in a proportional font, in heights of its letters."""
    return sum(1.0 if unicodedata.east_asian_width(character) in "WF" else 0.6 for character in text)


def cells(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(_cells_of(character) for character in text)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def wrapped(text: str, most: float) -> str:
    """The text with line ends at spaces, so that no line is wider than `most` ems unless one word is."""
    lines = []
    for line in text.split("\n"):
        row = ""
        for word in line.split(" "):
            if row and ems(f"{row} {word}") > most:
                lines.append(row)
                row = word
            else:
                row = f"{row} {word}" if row else word
        lines.append(row)
    return "\n".join(lines)
