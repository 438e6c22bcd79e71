"""Tables: whole in a pipe, as wide as a terminal on one."""

import re

import click
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.cli.conftest import Run
from tests.cli.test_terminal import Terminal
from tests.dbus.fake_cluster import VOLUMES, FakeCluster
from vastskyd.cli.table import ELLIPSIS, ORNAMENT, Column, Laid, fit, lay_out, shorten

COLUMNS = (
    Column("NAME"), Column("SIZE", spare=2), Column("STATE"), Column("", spare=ORNAMENT),
    Column("HEAD", spare=1), Column("MESSAGE", least=16),
)  # fmt: skip
TEXTS = st.text("ab cdef/:\u540d\u0301\t", max_size=150)
ROWS = st.lists(
    st.tuples(
        st.from_regex(r"[A-Z]{1,64}", fullmatch=True), st.just("1.0 GiB"),
        st.sampled_from(("redundant", "unavailable")), st.just("━━━━"),
        st.from_regex(r"[a-z]{1,30}", fullmatch=True), TEXTS,
    ),
    max_size=6,
)  # fmt: skip


def lines_of(laid: Laid) -> list[str]:
    return [laid.titles, *(line for lines in laid.rows for line in lines)]


@given(ROWS, st.integers(60, 250), st.integers(1, 4))
def test_no_line_is_wider_and_no_name_or_state_is_lost(
    rows: list[tuple[str, ...]], room: int, most: int
) -> None:
    laid = lay_out(COLUMNS, rows, room, most)
    assert all(cell_len(click.unstyle(line)) <= room for line in lines_of(laid))
    assert len(laid.rows) == len(rows)
    for row, lines in zip(rows, laid.rows, strict=True):
        assert row[0] in "".join(lines)
        assert row[2] in "".join(lines)
        assert len(lines) <= most + 2


@given(ROWS)
def test_in_a_pipe_nothing_is_lost(rows: list[tuple[str, ...]]) -> None:
    laid = lay_out(COLUMNS, rows, None, 1)
    for row, (line,) in zip(rows, laid.rows, strict=True):
        assert all(each.replace("\t", " ").rstrip() in line for each in row)
        assert ELLIPSIS not in line


@given(st.lists(st.integers(1, 60), min_size=6, max_size=6), st.integers(1, 300))
def test_columns_go_in_the_order_they_can_be_spared(wanted: list[int], room: int) -> None:
    wanted = [max(each, len(column.title)) for each, column in zip(wanted, COLUMNS, strict=True)]
    widths = fit(COLUMNS, wanted, room)
    assert all(got <= want for got, want in zip(widths, wanted, strict=True))
    left_out = {column.spare for column, got in zip(COLUMNS, widths, strict=True) if not got}
    assert left_out in (set(), {ORNAMENT}, {ORNAMENT, 2}, {ORNAMENT, 2, 1})
    if sum(wanted) + 2 * 5 <= room:
        assert widths == wanted
    if left_out and left_out != {ORNAMENT, 2, 1}:
        # What has room was not left out for nothing.
        assert sum(each for each in widths if each) + 2 * (sum(map(bool, widths)) - 1) <= room
    assert widths[5] >= min(wanted[5], 8 if left_out == {ORNAMENT, 2, 1} else 16)


@given(TEXTS, st.integers(1, 160))
def test_what_is_shortened_says_so(text: str, most: int) -> None:
    short = shorten(text, most)
    assert cell_len(short) <= most
    assert short == text or ELLIPSIS in short or "/" in text


@pytest.mark.parametrize(
    ("text", "most", "short"),
    [
        ("store1:/dev/sdb", 15, "store1:/dev/sdb"),
        ("store1:/dev/disk/by-id/ata-WDC_WD30EFRX_123456", 31, "store1:ata-WDC_WD30EFRX_123456"),
        ("store1:/dev/disk/by-id/ata-WDC_WD30EFRX_123456", 24, "store1:ata-W…EFRX_123456"),
        ("without store1:/dev/disk/by-id/ata-WDC_WD30EFRX_123456 now", 33,
         "without store1:ata-…RX_123456 now"),
        ("a word, and more that is not needed", 12, "a word, and…"),
        ("3f9c0a1b77e0d2c4", 9, "3f…e0d2c4"),
        ("I/O error on a path", 12, "I/O error o…"),
        ("either/or/one/or/the/other", 12, "either/or/o…"),
    ],
)  # fmt: skip
def test_paths_keep_their_ends(text: str, most: int, short: str) -> None:
    assert shorten(text, most) == short


def test_paths_are_wrapped_as_what_they_are() -> None:
    why = (
        "writes wait for storage-fra1-r02-u12:/dev/disk/by-id/nvme-SAMSUNG_MZQL23T8HCLS_000802 now"
    )
    (lines,) = lay_out((Column("A"), Column("WHY", least=20)), [("a", why)], 27, 9).rows
    assert [line[3:] for line in lines] == [
        "writes wait for", "storage-fra1-r02-u12:nvm", "e…LS_000802 now",
    ]  # fmt: skip


LONG = msgspec.structs.replace(
    VOLUMES[0], name="postgres-orders-replica", head="head-fra1-kvm-01",
    message="segment 0: 1 of 2 legs; without store2:/dev/disk/by-id/nvme-SAMSUNG_MZQL23T8HCLS_S64H",
)  # fmt: skip


def test_a_list_fits_its_terminal(cluster: FakeCluster) -> None:
    cluster.volumes = (LONG,)
    with Terminal("volume", "list", more={"COLUMNS": "80"}) as terminal:
        assert terminal.finish() == 0
        lines = click.unstyle(terminal.said).splitlines()
    assert all(len(line) <= 80 for line in lines), lines
    assert lines[1].startswith("postgres-orders-replica  degraded  head-fra1-kvm-01")
    assert " ".join(re.split(" {2,}|\r?\n *", "\n".join(lines[1:]))).endswith("_S64H"), (
        "on more lines"
    )


def test_a_watched_one_does_too(cluster: FakeCluster) -> None:
    cluster.volumes = (LONG,)
    with Terminal("volume", "list", "--watch", more={"COLUMNS": "80"}) as terminal:
        terminal.read_until("_S64H")
        assert all(len(line) <= 80 for line in click.unstyle(terminal.said).splitlines())


def test_without_a_terminal_nothing_is_cut(run: Run, cluster: FakeCluster) -> None:
    cluster.volumes = (LONG,)
    assert run("volume", "list").stdout.splitlines()[1].endswith(LONG.message)


def test_what_cannot_be_drawn_on_gets_all(cluster: FakeCluster) -> None:
    cluster.volumes = (LONG,)
    with Terminal("volume", "list", more={"COLUMNS": "80", "TERM": "dumb"}) as terminal:
        assert terminal.finish() == 0
        assert LONG.message in terminal.said
