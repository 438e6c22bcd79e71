"""The interfaces as XML, from the same table that answers calls.

`python3 -m vastskyd.dbus.introspection` prints what packaging/org.vastsky.Vastsky1.xml holds.
"""

from collections.abc import Iterable
from html import escape

from vastskyd.dbus.interfaces import INTERFACES, MANAGER, OF_KIND
from vastskyd.dbus.manual_words import GIVEN, said, unmarked
from vastskyd.dbus.paths import ROOT, Kind, Place
from vastskyd.dbus.records import answered, said_of
from vastskyd.dbus.records import shown as shown_records
from vastskyd.dbus.table import Interface, Method, Property, Signal

_DOCTYPE = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    ' "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)
_DOC = "org.gtk.GDBus.DocString"
_EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"

_STANDARD = """\
  <interface name="org.freedesktop.DBus.Introspectable">
    <method name="Introspect"><arg name="xml" type="s" direction="out"/></method>
  </interface>
  <interface name="org.freedesktop.DBus.Peer">
    <method name="Ping"/>
    <method name="GetMachineId"><arg name="machine_id" type="s" direction="out"/></method>
  </interface>
"""
_PROPERTIES = """\
  <interface name="org.freedesktop.DBus.Properties">
    <method name="Get">
      <arg name="interface" type="s" direction="in"/>
      <arg name="property" type="s" direction="in"/>
      <arg name="value" type="v" direction="out"/>
    </method>
    <method name="GetAll">
      <arg name="interface" type="s" direction="in"/>
      <arg name="properties" type="a{sv}" direction="out"/>
    </method>
    <method name="Set">
      <arg name="interface" type="s" direction="in"/>
      <arg name="property" type="s" direction="in"/>
      <arg name="value" type="v" direction="in"/>
    </method>
    <signal name="PropertiesChanged">
      <arg name="interface" type="s"/>
      <arg name="changed" type="a{sv}"/>
      <arg name="invalidated" type="as"/>
    </signal>
  </interface>
"""
_OBJECT_MANAGER = """\
  <interface name="org.freedesktop.DBus.ObjectManager">
    <method name="GetManagedObjects">
      <arg name="objects" type="a{oa{sa{sv}}}" direction="out"/>
    </method>
    <signal name="InterfacesAdded">
      <arg name="object" type="o"/>
      <arg name="interfaces" type="a{sa{sv}}"/>
    </signal>
    <signal name="InterfacesRemoved">
      <arg name="object" type="o"/>
      <arg name="interfaces" type="as"/>
    </signal>
  </interface>
"""


def _quoted(text: str) -> str:
    """As an attribute's value. (xml.sax.saxutils would import an HTTP client.)"""
    inside = escape(text, quote=False).replace('"', "&quot;").replace("\n", "&#10;")
    return f'"{inside}"'


def _annotation(name: str, value: str, indent: str) -> str:
    return f"{indent}<annotation name={_quoted(name)} value={_quoted(value)}/>\n"


def _method(method: Method) -> str:
    doc = f"{method.purpose}{method.errors_said}{method.action_said}"
    lines = f"    <method name={_quoted(method.name)}>\n" + _annotation(_DOC, doc, "      ")
    for name, kind in method.takes:
        lines += _argument(name, kind, "in", _taken(method, name))
    for name, kind in method.gives:
        lines += _argument(name, kind, "out", _given(method, name))
    return lines + "    </method>\n"


def _argument(name: str, kind: str, direction: str, doc: str) -> str:
    """A signal's has no direction."""
    way = f' direction="{direction}"' if direction else ""
    return (
        f'      <arg name="{name}" type="{kind}"{way}>\n'
        + _annotation(_DOC, doc, "        ")
        + "      </arg>\n"
    )


def _taken(method: Method, name: str) -> str:
    if name != "options":
        return unmarked(said(method.name, name))
    known = (
        f"{option} ({kind}): {unmarked(said(method.name, option))}"
        for option, kind in method.known_options
    )
    return "\n".join(known)


def _given(method: Method, name: str) -> str:
    records = answered(method)
    if records and name in (method.gives[0][0], "answer"):
        return "\n\n".join(map(said_of, records))
    return GIVEN[name]


def _signal(signal: Signal) -> str:
    lines = f"    <signal name={_quoted(signal.name)}>\n"
    lines += _annotation(_DOC, signal.purpose, "      ")
    for name, kind in signal.gives:
        lines += _argument(name, kind, "", GIVEN[name])
    return lines + "    </signal>\n"


def _property(interface: Interface, shown: Property, *, announced: bool) -> str:
    emits = "true" if announced else "false"
    records = shown_records(interface, shown)
    return (
        f'    <property name="{shown.name}" type="{interface.kind(shown)}" access="read">\n'
        + _annotation(_DOC, "\n\n".join((shown.purpose, *map(said_of, records))), "      ")
        + _annotation(_EMITS, emits if shown.changes else "const", "      ")
        + "    </property>\n"
    )


def interface_xml(interface: Interface, *, announced: bool) -> str:
    """`announced`: of an object that tells its changes."""
    return (
        f'  <interface name="{interface.name}">\n'
        + _annotation(_DOC, interface.purpose, "    ")
        + "".join(_method(method) for method in interface.methods)
        + "".join(_signal(signal) for signal in interface.signals)
        + "".join(_property(interface, p, announced=announced) for p in interface.properties)
        + "  </interface>\n"
    )


_NEVER_ANNOUNCED = (OF_KIND[Kind.NODE], OF_KIND[Kind.VOLUME])


def shipped_xml() -> str:
    """Of the host's own objects as they are; nodes and volumes never are a host's own."""
    bodies = (interface_xml(each, announced=each not in _NEVER_ANNOUNCED) for each in INTERFACES)
    return f'{_DOCTYPE}<node name="{ROOT}">\n{"".join(bodies)}</node>\n'


def root_xml() -> str:
    ours = interface_xml(MANAGER, announced=True)
    return _node(ours + _PROPERTIES + _OBJECT_MANAGER, tuple(Kind))


def object_xml(place: Place, *, announced: bool) -> str:
    return _node(interface_xml(OF_KIND[place.kind], announced=announced) + _PROPERTIES)


def way_xml(path: str, own: Iterable[str]) -> str | None:
    """Of a path that is no object, but on the way to one: the root, or one of `own`."""
    below = path.rstrip("/") + "/"
    kinds = (f"{ROOT}/{kind}" for kind in Kind)
    inner = {
        other.removeprefix(below).split("/")[0]
        for other in (ROOT, *kinds, *own)
        if other.startswith(below)
    }
    there = inner or path in (f"{ROOT}/{kind}" for kind in Kind)
    return _node("", sorted(inner)) if there else None


def _node(body: str, inner: Iterable[str] = ()) -> str:
    nodes = "".join(f'  <node name="{name}"/>\n' for name in inner)
    return f"{_DOCTYPE}<node>\n{body}{_STANDARD}{nodes}</node>\n"


if __name__ == "__main__":
    print(shipped_xml(), end="")  # noqa: T201
