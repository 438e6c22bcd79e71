"""The interface as XML, from the same table that answers calls.

`python3 -m vastskyd.dbus.introspection` prints what packaging/org.vastsky.Vastsky1.xml holds.
"""

from html import escape

from vastskyd.core.api import LocalView
from vastskyd.dbus.methods import INTERFACE, METHODS, PATH, PROPERTIES, Method
from vastskyd.dbus.variants import members, signature

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
  </interface>
"""


def _quoted(text: str) -> str:
    """As an attribute's value. (xml.sax.saxutils would import an HTTP client.)"""
    return f'"{escape(text)}"'


def _annotation(name: str, value: str, indent: str) -> str:
    return f"{indent}<annotation name={_quoted(name)} value={_quoted(value)}/>\n"


def _method(method: Method) -> str:
    options = ", ".join(f"{name} ({kind})" for name, kind in method.known_options)
    doc = f"{method.purpose} Options: {options or 'none'}."
    lines = f"    <method name={_quoted(method.name)}>\n" + _annotation(_DOC, doc, "      ")
    for direction, typed in (("in", method.takes), ("out", method.gives)):
        for name, kind in typed:
            lines += f'      <arg name="{name}" type="{kind}" direction="{direction}"/>\n'
    return lines + "    </method>\n"


def _property(name: str, member: str, changes: bool) -> str:
    kind = signature(members(LocalView)[member].type, member)
    return (
        f'    <property name="{name}" type="{kind}" access="read">\n'
        + _annotation(_EMITS, "false" if changes else "const", "      ")
        + "    </property>\n"
    )


def interface_xml() -> str:
    """The element of our interface."""
    return (
        f'  <interface name="{INTERFACE}">\n'
        + "".join(_method(method) for method in METHODS)
        + "".join(_property(*described) for described in PROPERTIES)
        + "  </interface>\n"
    )


def shipped_xml() -> str:
    return f'{_DOCTYPE}<node name="{PATH}">\n{interface_xml()}</node>\n'


def children(path: str) -> tuple[str, ...]:
    """The next part of PATH below `path`, if `path` is on the way to it."""
    below = path.rstrip("/") + "/"
    return (PATH.removeprefix(below).split("/")[0],) if PATH.startswith(below) else ()


def node_xml(path: str) -> str | None:
    """What introspection of `path` answers; None if there is no such object."""
    if path == PATH:
        return f"{_DOCTYPE}<node>\n{interface_xml()}{_PROPERTIES}{_STANDARD}</node>\n"
    if inner := children(path):
        nodes = "".join(f'  <node name="{name}"/>\n' for name in inner)
        return f"{_DOCTYPE}<node>\n{_STANDARD}{nodes}</node>\n"
    return None


if __name__ == "__main__":
    print(shipped_xml(), end="")  # noqa: T201
