"""Which copy is right."""

from hypothesis import given
from hypothesis import strategies as st

from vastskyd.core.majority import BLOCK_BYTES, differences, patches

# Of each copy, block by block, which of a few contents it has.
COPIES = st.integers(1, 6).flatmap(
    lambda blocks: st.lists(
        st.lists(st.sampled_from("abc"), min_size=blocks, max_size=blocks), min_size=2, max_size=5
    )
)


def content(copy: list[str]) -> bytes:
    return b"".join(letter.encode() * BLOCK_BYTES for letter in copy)


@given(COPIES)
def test_each_block_is_judged_alone(copies: list[list[str]]) -> None:
    found = {d.offset_bytes: d for d in differences([content(copy) for copy in copies])}
    for index, letters in enumerate(zip(*copies, strict=True)):
        difference = found.pop(index * BLOCK_BYTES, None)
        if len(set(letters)) == 1:
            assert difference is None
            continue
        assert difference is not None
        most = max(set(letters), key=letters.count)
        if len(letters) < 3 or letters.count(most) * 2 <= len(letters):
            assert difference.right is None
            assert difference.wrong == ()
        else:
            assert difference.right == most.encode() * BLOCK_BYTES
            assert difference.wrong == tuple(
                copy for copy, letter in enumerate(letters) if letter != most
            )
    assert not found


@given(COPIES)
def test_patched_copies_differ_only_where_nobody_knows(copies: list[list[str]]) -> None:
    contents = [content(copy) for copy in copies]
    found = differences(contents)
    written = [bytearray(each) for each in contents]
    for patch in patches(found):
        end = patch.offset_bytes + len(patch.content)
        assert contents[patch.copy][patch.offset_bytes : end] != patch.content
        written[patch.copy][patch.offset_bytes : end] = patch.content
    undecided = [difference for difference in found if difference.right is None]
    assert list(differences([bytes(each) for each in written])) == undecided
    for difference in undecided:
        block = slice(difference.offset_bytes, difference.offset_bytes + BLOCK_BYTES)
        assert [bytes(each[block]) for each in written] == [each[block] for each in contents]


def test_neighbours_are_written_at_once() -> None:
    good, bad = bytes(4 * BLOCK_BYTES), b"x" * (4 * BLOCK_BYTES)
    (patch,) = patches(differences([good, bad, good]))
    assert (patch.copy, patch.offset_bytes, patch.content) == (1, 0, good)
