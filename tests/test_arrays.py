import itertools
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


@settings(max_examples=30, deadline=None)
@given(parts=st.lists(LISTS, max_size=3), dtype=st.sampled_from([np.uint16, np.int32]))
def test_written_arrays_are_ordinary_npy_files(tmp_path_factory: Any, parts: list[list[list[int]]], dtype: Any) -> None:
    directory = tmp_path_factory.mktemp("arrays") / "train"
    writer = SequenceWriter(directory, "src_ids", dtype)
    with writer.spool:
        for part in parts:
            writer.add(Sequences.of(part, dtype))
        flat = [x for part in parts for x in part]
        assert writer.close() == sum(map(len, flat))
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
