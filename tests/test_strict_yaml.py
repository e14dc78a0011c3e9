"""The strict subset of YAML: what it takes, what it refuses, and that it never fails in any other way."""

import random
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from translate.config import Config
from translate.config.reader import load_config
from translate.config.strict_yaml import Ambiguous, Items, Mapping, Node, Scalar, Source, parse, read_file, resolve
from translate.errors import ConfigError, MissingInputError, TranslateError

SOURCE = Source("c.yaml", Path("/somewhere"))
REFERENCE = Path(__file__).parent.parent / "configs" / "reference.yaml"


def plain(node: Node) -> object:
    if isinstance(node, Mapping):
        return {key: plain(child) for key, child in node.entries.items()}
    if isinstance(node, Items):
        return [plain(child) for child in node.items]
    assert isinstance(node, Scalar)
    return resolve(node)


def value_of(text: str) -> object:
    return resolve(Scalar(SOURCE, 1, text, quoted=False))


def test_values_and_lines() -> None:
    tree = parse(b"a: 1\nb:\n  c: [x, 'no', 2.5]\n  # a comment\n  d:\n    - e: true\n", SOURCE)
    assert plain(tree) == {"a": 1, "b": {"c": ["x", "no", 2.5], "d": [{"e": True}]}}
    b = tree.entries["b"]
    assert isinstance(b, Mapping)
    assert (tree.entries["a"].where, b.entries["c"].where, b.entries["d"].where) == ("c.yaml:1", "c.yaml:3", "c.yaml:5")


def test_line_of_a_block_is_that_of_its_key() -> None:
    assert parse(b"\n\nb:\n\n\n  c: 1\n", SOURCE).entries["b"].line == 3


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# nothing\n", b"---\n", b"\xef\xbb\xbf", b"---\n...\n"])
def test_nothing_is_an_empty_mapping(data: bytes) -> None:
    assert parse(data, SOURCE).entries == {}


@pytest.mark.parametrize("data", [b"\xef\xbb\xbfa: 1\n", b"a: 1\r\n", b"---\r\na: 1", "a: 1 # 한국어\n".encode()])
def test_marks_and_line_ends_of_other_systems(data: bytes) -> None:
    assert plain(parse(data, SOURCE)) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("false", False), ("null", None), ("~", None), ("", None),
        ("0", 0), ("7", 7), ("-3", -3), ("+5", 5), ("12345678901234567890", 12345678901234567890),
        ("1e-4", 1e-4), ("1E+5", 1e5), ("1.e-4", 1e-4), (".5", 0.5), ("5.", 5.0), ("-0.25", -0.25), ("1.10", 1.1),
        ("none", "none"), ("13a", "13a"), ("a b", "a b"), ("nein", "nein"), ("v1.2", "v1.2"), ("-", "-"), ("e5", "e5"),
        ("../data/train.de", "../data/train.de"), ("${HOME}", "${HOME}"), ("~/x", "~/x"), ("inf", "inf"),
    ],
)  # fmt: skip
def test_plain_scalars(text: str, value: object) -> None:
    found = value_of(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        *("yes", "no", "on", "off", "y", "n", "Yes", "NO", "On", "True", "TRUE", "False", "Null", "NULL"),
        *("010", "00", "-007", "0x10", "0o17", "0b11", "1_000", "1__0", "1:30", "1:30:00", "190:20:30.15"),
        *("2024-01-01", "2024-1-1", "2024-01-01T00:00:00", "2024-01-01 00:00", ".inf", "-.inf", ".nan", ".NaN"),
        *("1,000", "1.2.3", "1e", "="),
    ],
)
def test_scalars_that_mean_different_things_to_different_readers(text: str) -> None:
    assert value_of(text) == Ambiguous(text)


@given(st.text(st.sampled_from("0123456789.+-_:eExXoOabfnTtrueyslo~= "), min_size=1, max_size=7))
@settings(max_examples=400, deadline=None, database=None)
def test_no_text_that_pyyaml_takes_for_something_else_passes_as_text(text: str) -> None:
    found = value_of(text)
    if isinstance(found, str):
        tag = yaml.SafeLoader("").resolve(yaml.ScalarNode, text, (True, False))
        assert tag == "tag:yaml.org,2002:str"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"- 1", "c.yaml:1: found a list at the top"),
        (b"\nword", "c.yaml:2: found a single value at the top"),
        (b"null", "found a single value at the top"),
        (b"a: 1\n---\nb: 2\n", "c.yaml:2: found a second document"),
        (b"a: 1\nb: 2\na: 3\n", "c.yaml:3: the key 'a' is given twice (first in line 1)"),
        (b"a:\n  b: 1\n  c: 1\n  b: 1\n", "c.yaml:4: the key 'b' is given twice (first in line 2)"),
        (b"a: {b: 1, b: 2}", "the key 'b' is given twice"),
        (b"a: &x 1\nb: 2", "c.yaml:1: anchors (&) and aliases (*) are not accepted"),
        (b"a: *x", "anchors (&) and aliases (*)"),
        (b"a: &x [1]", "anchors (&) and aliases (*)"),
        (b"<<: {a: 1}", "merge keys (<<) are not accepted"),
        (b"a: !!python/object/apply:os.system [true]", "c.yaml:1: tags (!) are not accepted"),
        (b"a: !!binary aGk=", "tags (!)"),
        (b"a: !x 1", "tags (!)"),
        (b"!!map {a: 1}", "tags (!)"),
        (b"%YAML 1.1\n---\na: 1", "found a directive"),
        (b"1: a", "found the key '1', expected a setting's name"),
        (b"true: a", "found the key 'true'"),
        (b"no: a", "found the key 'no'"),
        (b"~: a", "found the key '~'"),
        (b"? [a]\n: 1", "found a key that is not a word"),
        (b"a:\n\tb: 1", "c.yaml:2: found a tab in column 1"),
        (b"a: 1\rb: 2", "found the character U+000D"),
        (b"a: x\x00", "found the character U+0000 in column 5"),
        (b"a: \x1b[1m", "found the character U+001B"),
        (b"a: \x7f", "found the character U+007F"),
        ("a: x\u0085b: 1".encode(), "found the character U+0085"),
        ("a: x\u2028b: 1".encode(), "found the character U+2028"),
        ("a: x\ufeffb".encode(), "found the character U+FEFF"),
        (b'a: "\\0"', "the value holds the character U+0000"),
        (b'a: "\\N"', "the value holds the character U+0085"),
        (b'a: "\\UFFFFFFFF"', "c.yaml: not YAML"),
        (b"x: 1\na: \xff", "c.yaml:2: byte 0xff at offset 8 is not UTF-8"),
        (b"a: 'x", "c.yaml:1: not YAML"),
        (b"a: 1\n b: 2", "c.yaml:2: not YAML"),
        (b"a: [1", "c.yaml:1: not YAML"),
        (b"a: @x", "not YAML"),
        (b"a: " + b"[" * 100_000, "c.yaml:1: nested deeper than 20 levels"),
        (b"{a: " * 30 + b"1" + b"}" * 30, "nested deeper than 20 levels"),
        (b"a: 1\n" * 300_000, "larger than 1048576 bytes"),
    ],
)
def test_what_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(data, SOURCE)
    assert message in str(caught.value)


def test_twenty_levels_are_accepted() -> None:
    parse(b"{a: " * 20 + b"1" + b"}" * 20, SOURCE)


@pytest.mark.parametrize("name", ["", "missing.yaml", "x" * 5000, "/dev/null", "\udcff.yaml"])
def test_what_is_not_a_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError):
        read_file(tmp_path / name, "c.yaml")


def test_mutated_configs_are_read_or_refused_with_a_sentence(tmp_path: Path) -> None:
    """Bytes of a sound config are dropped, doubled, flipped, or exchanged for what YAML gives a meaning."""
    draw = random.Random(7)
    original = "\n".join(line for line in REFERENCE.read_text("utf-8").split("\n") if "#" not in line).encode()
    pieces = [b"&a ", b"*a", b"!!x ", b"<<: ", b"\t", b"- ", b": ", b"{", b"]", b"'", b'"', b"|", b"\n", b"no", b"010"]
    path = tmp_path / "c.yaml"
    outcomes = {True: 0, False: 0}
    for _ in range(300):
        data = bytearray(original)
        for _ in range(draw.randint(1, 2)):
            at = draw.randrange(len(data))
            match draw.randrange(4):
                case 0:
                    del data[at : at + draw.randint(1, 8)]
                case 1:
                    data[at:at] = data[at : at + draw.randint(1, 40)]
                case 2:
                    data[at] ^= 1 << draw.randrange(8)
                case _:
                    data[at:at] = draw.choice(pieces)
        path.write_bytes(data)
        problem = ""
        try:
            assert isinstance(load_config(path), Config)
        except TranslateError as error:
            problem = str(error)
        assert not problem or problem.startswith(str(path))
        outcomes[not problem] += 1
    assert min(outcomes.values()) > 5, "the mutations should make some configs unsound and leave some sound"
