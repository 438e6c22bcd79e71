"""The host's own objects: what was told of them, and the signals that tell what changed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vastskyd.core.answers import LocalView
from vastskyd.core.model import Record
from vastskyd.dbus.interfaces import MANAGER, OF_KIND
from vastskyd.dbus.messages import Message, Variant
from vastskyd.dbus.paths import ROOT, Kind, Place
from vastskyd.dbus.table import Interface
from vastskyd.dbus.variants import text

_OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
_PROPERTIES = "org.freedesktop.DBus.Properties"

Values = dict[str, Variant]


@dataclass
class _Told:
    record: Record
    values: Values


class OwnObjects:
    """`emit` sends a signal. What is put or removed is told at once: whoever puts sees to it that
    this is not too often."""

    def __init__(self, emit: Callable[[Message], None]) -> None:
        self._emit = emit
        self._told: dict[Place, _Told] = {}
        self._host: _Told | None = None

    def get(self, place: Place) -> Record | None:
        told = self._told.get(place)
        return None if told is None else told.record

    def paths(self) -> list[str]:
        return [place.path for place in self._told]

    def managed(self) -> dict[str, dict[str, Values]]:
        """The answer of GetManagedObjects."""
        return {
            place.path: {OF_KIND[place.kind].name: told.values}
            for place, told in self._told.items()
        }

    def put(self, place: Place, record: Record) -> None:
        """There is such an object, or it has changed."""
        before = self._told.get(place)
        if before is not None and before.record == record:
            return
        interface = OF_KIND[place.kind]
        values = interface.values(record)
        self._told[place] = _Told(record, values)
        if before is None:
            body: list[Any] = [place.path, {interface.name: values}]
            self._signal(ROOT, _OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", body)
        else:
            self._tell_changes(place.path, interface, before.values, values)

    def remove(self, place: Place) -> None:
        if self._told.pop(place, None) is not None:
            body: list[Any] = [place.path, [OF_KIND[place.kind].name]]
            self._signal(ROOT, _OBJECT_MANAGER, "InterfacesRemoved", "oas", body)

    def replace(self, kind: Kind, records: Mapping[Place, Record]) -> None:
        """These are all objects of the kind."""
        for gone in [p for p in self._told if p.kind is kind and p not in records]:
            self.remove(gone)
        for place, record in records.items():
            self.put(place, record)

    def put_host(self, view: LocalView) -> None:
        """The Manager's own properties."""
        before = self._host
        if before is not None and before.record == view:
            return
        self._host = _Told(view, MANAGER.values(view))
        if before is not None:
            self._tell_changes(ROOT, MANAGER, before.values, self._host.values)

    def completed(self, place: Place, error: str, message: str, hint: str) -> None:
        """The job's signal; without an error it has done what was asked."""
        interface = OF_KIND[Kind.JOB].name
        body = [not error, error, text(message), text(hint)]
        self._signal(place.path, interface, "Completed", "bsss", body)

    def _tell_changes(self, path: str, interface: Interface, old: Values, new: Values) -> None:
        changed = {name: value for name, value in new.items() if old.get(name) != value}
        if changed:
            body: list[Any] = [interface.name, changed, []]
            self._signal(path, _PROPERTIES, "PropertiesChanged", "sa{sv}as", body)

    def _signal(
        self, path: str, interface: str, member: str, signature: str, body: list[Any]
    ) -> None:
        self._emit(Message.new_signal(path, interface, member, signature, body))
