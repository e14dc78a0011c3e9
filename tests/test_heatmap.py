"""Pictures of attention: the font, the PNG, the page and the sums over words."""

import io
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from fontTools.ttLib import TTFont

from translate.report import fonts
from translate.report.head_grid import draw_heads
from translate.report.heatmap import DOTS_PER_INCH, MOST_DOTS, draw
from translate.report.page import SHADES, Grid, Picture, grid_svg, svg, write_page
from translate.report.widths import cells, ems, wrapped
from translate.report.words import Weights, by_words, word_spans, word_texts

KOREAN = ["▁나는", "▁학생", "이다", "</s>"]
ENGLISH = ["▁I", "▁am", "▁a", "▁student", ".", "</s>"]
SVG = "{http://www.w3.org/2000/svg}"


def weights(*shape: int, seed: int = 0) -> Weights:
    """Random weights whose rows add up to one."""
    values = np.random.default_rng(seed).random(shape).astype(np.float32) ** 4
    return values / values.sum(axis=-1, keepdims=True)


def pixels(png: bytes) -> np.ndarray:
    from matplotlib.image import imread

    image: np.ndarray = imread(io.BytesIO(png))
    return image


@pytest.mark.parametrize(
    "text",
    [
        "나는 어제 도서관에서 책을 읽었습니다. 똠방각하 뷁 햏 않았다",
        "私は昨日図書館で面白い本を読みました。カタカナ、ー「々」",
        "Äpfel, Öl, Übung, Straße — „Größe“ 5 €",
        "Ça va, à côté, œuvre, naïve · příliš žluťoučký kůň",
        '<0xEC> </s> _ $ & " → ←',
    ],
)
def test_the_fonts_have_every_label(text: str) -> None:
    """Ours, or for a few letters the one that comes with matplotlib."""
    from matplotlib import font_manager

    characters = {ord(character) for character in fonts.printable(text)}
    with TTFont(fonts.FILE) as font:
        missing = characters - set(font.getBestCmap())
    with TTFont(font_manager.findfont(fonts.FALLBACK)) as fallback:
        assert not missing - set(fallback.getBestCmap())
    for code in missing:
        assert unicodedata.name(chr(code)).startswith("LATIN"), f"{chr(code)!r} is not in our font"


def test_the_font_has_the_usual_hangul_and_kanji() -> None:
    with TTFont(fonts.FILE) as font:
        held = set(font.getBestCmap())
        names = {record.nameID: str(record) for record in font["name"].names}
    for encoding, rows, most in (("euc_kr", range(0xB0, 0xC9), 2350), ("euc_jp", range(0xB0, 0xD0), 2965)):
        wanted = {bytes((row, cell)).decode(encoding, "ignore") for row in rows for cell in range(0xA1, 0xFF)} - {""}
        assert len(wanted) == most
        assert {ord(character) for character in wanted} <= held
    assert names[1] == fonts.FAMILY
    assert fonts.FILE.stat().st_size < 1_500_000


def test_the_licence_is_beside_the_font() -> None:
    text = fonts.FILE.with_name("OFL.txt").read_text(encoding="utf-8")
    assert "SIL OPEN FONT LICENSE Version 1.1" in text
    assert "Copyright 2014-2021 Adobe" in text


def test_matplotlib_finds_the_font_by_its_name() -> None:
    from matplotlib import font_manager

    assert Path(font_manager.findfont(fonts.families()[0], fallback_to_default=False)) == fonts.FILE


def test_labels_without_control_characters() -> None:
    assert fonts.printable("a\nb\x00▁c") == "a□b□_c"


def test_a_label_is_drawn_with_its_own_glyphs() -> None:
    """Empty boxes would be the same for any two labels of the same length."""
    one, two = (draw(weights(1, 1), [label], ["x"]) for label in ("학생", "선생"))
    assert pixels(one).shape == pixels(two).shape
    assert (pixels(one) != pixels(two)).any()


def test_stronger_is_darker_and_rows_go_down() -> None:
    image = pixels(draw(np.array([[1.0, 0.0], [0.0, 0.4]], dtype=np.float32), ["a", "b"], ["x", "y"]))[..., :3]
    dark = np.argwhere(image.sum(-1) < image.sum(-1).min() + 0.01)  # the colour of the weight 1, and of text
    blue = np.argwhere(np.abs(image - [0.03, 0.19, 0.42]).max(-1) < 0.02)
    assert len(blue) > 500
    assert len(dark) > 0
    middle = blue.mean(0) / image.shape[:2]
    assert middle[0] < 0.6
    assert middle[1] < 0.6


def test_dollars_are_no_mathematics() -> None:
    draw(weights(2, 2), ["$\\frac$", "a$b"], ["$$", "\\alpha$_$"], "$x")


def test_characters_without_a_glyph_are_no_warning() -> None:
    draw(weights(1, 2), ["ไทย", "\U0001f600"], ["汉"], "\U00020000")


def test_long_sentences_are_drawn() -> None:
    image = pixels(draw(weights(70, 150), [f"▁조각{i}" for i in range(150)], [f"piece{i}" for i in range(70)]))
    assert MOST_DOTS / 2 < max(image.shape) <= MOST_DOTS


def test_heads_side_by_side() -> None:
    layers = {f"layer {index}": weights(2, 6, 4, seed=index) for index in (1, 2)}
    one = pixels(draw_heads({"layer 1": layers["layer 1"][:1]}, KOREAN, ENGLISH))
    all_heads = pixels(draw_heads(layers, KOREAN, ENGLISH, "나는 학생이다"))
    assert all_heads.shape[0] > 1.4 * one.shape[0]
    assert all_heads.shape[1] > 1.3 * one.shape[1]


def drawn_figure(monkeypatch: pytest.MonkeyPatch, module: str, drawing: Callable[..., bytes], *arguments: Any) -> Any:
    """The matplotlib figure, in place of its PNG."""
    figures: list[Any] = []

    def keep(figure: Any) -> bytes:
        figures.append(figure)
        return b""

    monkeypatch.setattr(f"translate.report.{module}.png", keep)
    drawing(*arguments)
    return figures[0]


def texts_drawn(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> list[tuple[str, float, float, float]]:
    """Every text of a grid with its height, its left and its upper edge, in dots of the picture."""
    figure = drawn_figure(monkeypatch, "head_grid", draw_heads, *arguments)
    figure.set_dpi(DOTS_PER_INCH)
    figure.draw_without_rendering()
    found = []
    for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text") and artist.get_text()):
        box = text.get_window_extent(figure.canvas.get_renderer())
        if text.get_visible():
            found.append((text.get_text(), text.get_fontsize() * DOTS_PER_INCH / 72, box.x0, box.y1))
    return found


def test_a_grid_of_twelve_layers_and_eight_heads_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Titles of rows and columns, the scale, and each piece with its number; nothing below 12 dots on 4000."""
    layers = {f"layer {index}": weights(8, 25, 25, seed=index) for index in range(1, 13)}
    src, tgt = [f"조각{i}" for i in range(25)], [f"piece{i}" for i in range(25)]
    drawn = texts_drawn(monkeypatch, layers, src, tgt, "a title")
    names = [text for text, *_ in drawn]
    for name in (*layers, *(f"head {head}" for head in range(1, 9)), "weight", "0.00", "mean of all heads"):
        assert names.count(name) == 1, name
    for side in (src, tgt):
        assert all(names.count(f"{number} {piece}") == 1 for number, piece in enumerate(side, start=1))
    assert f"{max(heads.max() for heads in layers.values()):.2f}" in names
    assert min(height for _, height, *_ in drawn) > 12
    monkeypatch.undo()
    assert max(pixels(draw_heads(layers, src, tgt, "a title")).shape) < 4000


def test_grids_of_long_sentences_are_drawn() -> None:
    src, tgt = [f"▁조각{i}" for i in range(260)], [f"piece{i}" for i in range(6)]
    image = pixels(draw_heads({"layer 1": weights(2, 6, 260)}, src, tgt, "a title"))
    assert MOST_DOTS / 2 < max(image.shape) <= MOST_DOTS


def test_titles_of_a_small_grid_are_clear_of_the_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = {f"layer {index}": weights(2, 6, 4, seed=index) for index in (1, 2)}
    drawn = texts_drawn(monkeypatch, layers, KOREAN, ENGLISH)
    names = [text for text, *_ in drawn]
    assert names.count("_나는") == 2  # above each map of the first row
    assert names.count("_I") == 2  # left of the first map of each row
    assert "mean of all heads" not in names
    left = {text: x for text, _, x, _ in drawn}
    high = {text: y for text, _, _, y in drawn}
    assert left["layer 1"] < left["_student"]
    assert high["head 1"] > high["_학생"]


def test_the_scale_of_a_picture_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.array([[0.62, 0.38]], dtype=np.float32)
    bar = drawn_figure(monkeypatch, "heatmap", draw, values, ["a", "b"], ["x"]).axes[1]
    assert bar.get_ylabel() == "weight"
    assert [label.get_text() for label in bar.get_yticklabels()] == ["0.00", "0.31", "0.62"]


def test_widths() -> None:
    assert ems("a학") == pytest.approx(1.6)
    assert cells("a학\u0301") == 3
    assert wrapped("aa bb 학교 cc\nd", 3.0) == "aa bb\n학교\ncc\nd"


def test_words_of_pieces() -> None:
    pieces = ["▁I", "▁read", "▁", "학", "<0xEC>", "<0x83>", "<0x9D>", ".", "</s>"]
    spans = word_spans(pieces)
    assert spans == [(0, 1), (1, 2), (2, 7), (7, 8), (8, 9)]
    assert word_texts(pieces, spans) == ["I", "read", "학생", ".", "</s>"]
    assert word_spans(["이", "다", "</s>"]) == [(0, 2), (2, 3)]
    assert word_spans(["▁stud", "ent", ".", "</s>"]) == [(0, 2), (2, 3), (3, 4)]


def test_broken_bytes_are_shown_as_such() -> None:
    assert word_texts(["▁a", "<0xEC>"], [(0, 2)]) == ["a�"]


def test_words_sum_their_source_and_average_their_target() -> None:
    by_pieces = weights(6, 4)
    src, tgt = word_spans(KOREAN), word_spans(ENGLISH)
    found = by_words(by_pieces, tgt, src)
    assert found.shape == (6, 3)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found[0], [by_pieces[0, 0], by_pieces[0, 1] + by_pieces[0, 2], by_pieces[0, 3]])
    two_pieces = by_words(by_pieces, [(0, 3), (3, 5), (5, 6)], src)
    student = (by_pieces[3, 1] + by_pieces[3, 2] + by_pieces[4, 1] + by_pieces[4, 2]) / 2
    assert two_pieces[1, 1] == pytest.approx(student)


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))


def test_svg_says_each_weight() -> None:
    values = np.array([[0.25, 0.75, 0.0]], dtype=np.float32)
    root = ElementTree.fromstring(svg(Picture("x", values, ["가", '<b a="1">&', "끝"], ["T"])))
    titles = [element.text for element in root.iter(f"{SVG}title")]
    assert titles == ["T ← 가: 0.250", 'T ← <b a="1">&: 0.750']
    opacities = [float(cell.get("fill-opacity", "")) for cell in root.iter(f"{SVG}rect") if cell.get("class") == "cell"]
    assert opacities == pytest.approx([1 / 3, 1], abs=1e-3)
    assert [element.text for element in root.iter(f"{SVG}text")] == ["가", '<b a="1">&', "끝", "T", "0.75", "0.00"]


def test_grid_has_every_head_once_and_its_shades() -> None:
    values = np.zeros((2, 2, 3), dtype=np.float32)
    values[0, 1, 2], values[1, 0, 0] = 0.8, 0.4
    root = ElementTree.fromstring(grid_svg(Grid("heads", {"layer 1": values, "layer 2": values[:1]})))
    heads = [element for element in root.iter(f"{SVG}g") if element.get("class") == "head"]
    assert [head.get("data-name") for head in heads] == [
        "heads, layer 1, head 1", "heads, layer 1, head 2", "heads, layer 2, head 1",
    ]  # fmt: skip
    paths = [[(path.get("fill-opacity"), path.get("d")) for path in head.iter(f"{SVG}path")] for head in heads]
    assert paths == [[("1.00", "M2 1h1v1h-1")], [("0.50", "M0 0h1v1h-1")], [("1.00", "M2 1h1v1h-1")]]
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert texts == ["head 1", "2", "layer 1", "layer 2", "0.80", "0.00"]


def test_grid_of_many_heads_stays_small() -> None:
    layers = {f"layer {index}": weights(8, 25, 25, seed=index) for index in range(12)}
    text = grid_svg(Grid("heads", layers))
    assert len(text) < 600_000
    drawn = sum(path.get("d", "").count("M") for path in ElementTree.fromstring(text).iter(f"{SVG}path"))
    most = max(heads.max() for heads in layers.values())
    assert drawn == sum(int((heads > most / SHADES / 2).sum()) for heads in layers.values())


def test_page_stands_alone_and_is_escaped() -> None:
    pictures = [Picture(f"head {i}", weights(6, 4, seed=i), KOREAN, ENGLISH) for i in range(3)]
    text = write_page("<script>alert(1)</script>\x00", ["a & b < c"], pictures)
    root = parsed(text)
    assert len(list(root.iter("section"))) == len(list(root.iter("option"))) == 3
    assert len(list(root.iter("script"))) == 1
    assert next(root.iter("h1")).text == "<script>alert(1)</script>□"
    for word in ("http://", "https://", "src=", "href=", "@import"):
        assert word not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert text.count("url(") == text.count("url(data:font/woff;base64,") == 1


def test_page_brings_the_glyphs_it_needs() -> None:
    import base64

    data = fonts.embedded("학생 読").partition("base64,")[2].partition(")")[0]
    with TTFont(io.BytesIO(base64.b64decode(data))) as font:
        assert set(font.getBestCmap()) == {ord(character) for character in "학생 読"}


def test_page_stays_small_for_a_long_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("translate.report.page.MOST_CELLS", 10)
    pictures = [Picture(f"head {i}", weights(3, 3, seed=i), list("abc"), list("xyz")) for i in range(3)]
    root = parsed(write_page("t", [], pictures))
    assert len(list(root.iter("section"))) == 1
    assert any("2 pictures are left out" in (paragraph.text or "") for paragraph in root.iter("p"))
