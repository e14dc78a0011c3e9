import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from translate.text.arrays import Sequences, SequenceWriter, id_type, mapped

LISTS = st.lists(st.lists(st.integers(0, 999), max_size=6), min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(lists=LISTS, data=st.data())
def test_sequences_are_the_lists_they_came_from(lists: list[list[int]], data: st.DataObject) -> None:
    sequences = Sequences.of(lists, np.uint16)
    assert [list(sequences[i]) for i in range(len(sequences))] == lists
    assert list(sequences.lengths()) == [len(x) for x in lists]
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), min_size=1))
    shift = data.draw(st.integers(0, 2))
    padded = sequences.padded(np.array(rows), 10, shift)
    expected = [[0] * shift + lists[row] + [0] * (10 - shift - len(lists[row])) for row in rows]
    assert padded.tolist() == expected
    assert padded.dtype == np.int64


@settings(max_examples=50, deadline=None)
@given(lists=LISTS, data=st.data())
def test_chosen_sequences_are_the_marked_ones(lists: list[list[int]], data: st.DataObject) -> None:
    marks = data.draw(st.lists(st.booleans(), min_size=len(lists), max_size=len(lists)))
    chosen = Sequences.of(lists, np.int32).chosen(np.array(marks))
    expected = [items for items, marked in zip(lists, marks, strict=True) if marked]
    assert [chosen[i].tolist() for i in range(len(chosen))] == expected


def test_a_writer_holds_nothing_of_what_it_writes(tmp_path: Path) -> None:
    with SequenceWriter(tmp_path, "ids", np.int32) as writer:
        tracemalloc.start()
        for i in range(50):
            writer.add(Sequences.of([[i] * 100] * 1000, np.int32))
        writer.write()
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert held < 100_000
    assert peak < 4_000_000  # 20 MB were written
    assert (tmp_path / "ids.npy").stat().st_size > 20_000_000


@settings(max_examples=30, deadline=None)
@given(parts=st.lists(LISTS, max_size=3), dtype=st.sampled_from([np.uint16, np.int32]))
def test_written_arrays_are_ordinary_npy_files(tmp_path_factory: Any, parts: list[list[list[int]]], dtype: Any) -> None:
    directory = tmp_path_factory.mktemp("arrays") / "train"
    with SequenceWriter(directory, "src_ids", dtype) as writer:
        for part in parts:
            writer.add(Sequences.of(part, dtype))
        assert writer.write() == [directory / "src_ids.npy", directory / "src_offsets.npy"]
    flat = [x for part in parts for x in part]
    items, offsets = np.load(directory / "src_ids.npy"), np.load(directory / "src_offsets.npy")
    assert (items.dtype, offsets.dtype) == (np.dtype(dtype), np.dtype(np.int64))
    assert [items[a:b].tolist() for a, b in itertools.pairwise(offsets)] == flat
    found = mapped(directory, "src_ids")
    assert [found[i].tolist() for i in range(len(found))] == flat
    joined = Sequences.joined([Sequences.of(part, dtype) for part in parts], dtype)
    assert (joined.items.tolist(), joined.offsets.tolist()) == (items.tolist(), offsets.tolist())
    assert sorted(path.name for path in directory.iterdir()) == ["src_ids.npy", "src_offsets.npy"]


def test_type_holds_every_id() -> None:
    for size in (8, 65535, 65536, 65537, 2**20):
        assert np.iinfo(id_type(size)).max >= size - 1
    assert id_type(65536) is np.uint16
