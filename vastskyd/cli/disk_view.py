"""What `vastskyctl disk show` prints."""

from vastskyd.cli.output import format_duration, format_time, paint, print_facts
from vastskyd.core import answers
from vastskyd.core.units import format_size


def show_disk(view: answers.DiskView) -> None:
    free = format_size(view.size_bytes)
    if view.id:
        free += f", {format_size(view.free_bytes)} free"
    print_facts(
        (
            ("Disk", f"{view.node}:{view.path} ({view.id or 'not enrolled'})"),
            ("Serial", view.serial),
            ("Size", free),
            ("State", paint(view.state)),
            ("Volumes", ", ".join(view.volumes)),
            ("Message", view.message),
            *(_health(view.smart) if view.id else ()),
        )
    )


def _health(smart: answers.SmartView | None) -> tuple[tuple[str, str], ...]:
    if smart is None:
        return (("Health", "not known yet"),)
    why = f": {smart.reason}" if smart.reason else ""
    return (
        ("Model", smart.model),
        ("Health", f"{paint(smart.health)}{why}"),
        ("Warnings", "; ".join(smart.warnings)),
        ("Reallocated", _number(smart.reallocated, "sectors")),
        ("Pending", _number(smart.pending, "sectors")),
        ("Media errors", _number(smart.media_errors)),
        ("Wear", _number(smart.wear_percent, "%")),
        ("Reserve", _number(smart.spare_percent, "%")),
        ("Temperature", _number(smart.temperature_c, "°C")),
        ("Powered on", _age(smart.power_on_h)),
        ("Last change", format_time(smart.read_s)),
    )


def _number(value: int | None, unit: str = "") -> str:
    return "" if value is None else f"{value} {unit}".rstrip()


def _age(hours: int | None) -> str:
    return "" if hours is None else f"{hours} h ({format_duration(hours * 3600)})"
