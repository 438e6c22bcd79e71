"""What `vastskyctl volume show` prints."""

from vastskyd.cli.output import (
    columns,
    format_share,
    format_time,
    heading,
    paint,
    print_facts,
    say,
)
from vastskyd.cli.table import Column, print_table
from vastskyd.core import answers
from vastskyd.core.model import ScrubResult
from vastskyd.core.units import format_size

_VERDICT_COLUMNS = (
    Column("NODE"), Column("PATH", least=16), Column("TAKES", spare=2), Column("FREE", spare=1),
    Column("IN ONE PIECE", spare=3), Column("WHY", least=20),
)  # fmt: skip


def show_volume(view: answers.VolumeView) -> None:
    copies = f"{view.copies} copies" if view.copies > 1 else "1 copy"
    print_facts(
        (
            ("Volume", f"{view.name} ({view.id})"),
            ("Size", f"{format_size(view.size_bytes)}, {copies}, {view.layout}"),
            ("State", paint(view.state)),
            ("Health", paint(view.health)),
            ("Head", f"{view.head} ({paint(view.attachment)})" if view.attachment else view.head),
            ("Standby", ", ".join(view.standby)),
            ("Device", view.device),
            ("Scrubbed", _scrubbed(view.scrubbed) if view.copies > 1 else ""),
            ("Message", view.message),
        )
    )
    legs = iter(columns([_leg_row(leg) for segment in view.segments for leg in segment.legs]))
    for segment in view.segments:
        say(f"{heading(f'Segment {segment.index}')}  {format_size(segment.length_bytes)}")
        for number, _ in enumerate(segment.legs, start=1):
            branch = "└─" if number == len(segment.legs) else "├─"
            say(f"{branch} {next(legs)}")


def show_placement(found: answers.Placement) -> None:
    say(f"{'It fits' if found.fits else 'It does not fit'}: {found.reason}")
    if found.hint:
        say(f"hint: {found.hint}")
    print_table(_VERDICT_COLUMNS, [_verdict_row(verdict) for verdict in found.disks])


def _verdict_row(verdict: answers.DiskVerdict) -> tuple[str, ...]:
    sizes = (verdict.takes_bytes, verdict.free_bytes, verdict.largest_bytes)
    return (verdict.node, verdict.path, *(format_size(size) for size in sizes), verdict.reason)


def _scrubbed(result: ScrubResult | None) -> str:
    return "never" if result is None else f"{format_time(result.ended_s)}: {result.message}"


def _leg_row(leg: answers.LegView) -> tuple[str, ...]:
    share = format_share(leg.done_bytes, leg.total_bytes)
    notes = [share, leg.condition, "" if leg.reachable else paint("unreachable")]
    return (leg.node, leg.disk_path, paint(leg.state), ", ".join(note for note in notes if note))
