"""What an interface is made of: methods that carry requests, properties that show records.

Arguments are the request's members without a default, in order; the others travel in the
options a{sv} that every method takes last, so that a method can learn without being renamed.
The members that name the object which is called are in its path. What is not the caller's to
say (`asked_by`) is nowhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vastskyd.core import api
from vastskyd.core.errors import FailedError, InvalidError, NotFoundError, VastskyError
from vastskyd.core.model import Record
from vastskyd.dbus.actions import Action
from vastskyd.dbus.messages import Variant
from vastskyd.dbus.paths import BUS_NAME, NO_OBJECT, place_of
from vastskyd.dbus.variants import (
    OBJECT,
    member_out,
    members,
    nothing,
    plain,
    record_in,
    record_out,
    signature,
    value_out,
)

ANSWERS = api.ADMIN_REQUESTS | api.LOCAL_REQUESTS
SILENT = "auth.no_user_interaction"
_OURS = ("asked_by",)

Typed = tuple[str, str]  # an argument's name and signature


@dataclass(frozen=True)
class Asked:
    """What a call asks for. `silent`: nobody is to be asked for a password."""

    request: Record
    silent: bool


@dataclass(frozen=True)
class Method:
    """`action`: what polkit is asked about, None: for everybody; with one of the options
    `destroys` it is about destroying data. `target`: the members that the object's name gives,
    in order, with colons between. `arguments` and `options` where they differ from the rule
    above. `one_of`: the answer's list has one element, and the method gives that; none is
    NotFound. `as_object`: it gives that element's path. `raises`: besides what any may."""

    name: str
    request: type[Record]
    purpose: str
    action: Action | None = None
    destroys: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    arguments: tuple[str, ...] | None = None
    options: tuple[str, ...] | None = None
    one_of: bool = False
    as_object: bool = False
    raises: tuple[type[VastskyError], ...] = ()

    @cached_property
    def argument_names(self) -> tuple[str, ...]:
        if self.arguments is not None:
            return self.arguments
        known = members(self.request).items()
        return tuple(name for name, each in known if each.required and name not in self.target)

    @cached_property
    def option_names(self) -> tuple[str, ...]:
        """Without the one that is not the request's."""
        if self.options is not None:
            return self.options
        elsewhere = (*self.argument_names, *self.target, *_OURS)
        if self.request is api.CreateToken:
            elsewhere = (*elsewhere, "idempotency_key")  # no secret is kept to be told again
        return tuple(name for name in members(self.request) if name not in elsewhere)

    @cached_property
    def carries_all(self) -> bool:
        """Every member that a caller can give has its place."""
        placed = {*self.argument_names, *self.option_names, *self.target, *_OURS}
        return placed >= set(members(self.request)) - {"idempotency_key"}

    def _typed(self, names: tuple[str, ...]) -> tuple[Typed, ...]:
        known = members(self.request)
        return tuple((name, signature(known[name].type, name)) for name in names)

    @cached_property
    def takes(self) -> tuple[Typed, ...]:
        return (*self._typed(self.argument_names), ("options", "a{sv}"))

    @cached_property
    def known_options(self) -> tuple[Typed, ...]:
        return (*self._typed(self.option_names), (SILENT, "b"))

    @property
    def action_said(self) -> str:
        """Who may call it, as the end of its documentation."""
        if self.action is None:
            return ""
        said = f" polkit: {self.action.id}"
        if self.destroys:
            said += f", with {' or '.join(self.destroys)} {Action.DESTROY_DATA.id}"
        return said + "."

    @property
    def errors_said(self) -> str:
        """What it may raise of its own, as the end of its documentation."""
        names = ", ".join(kind.code for kind in self.raises)
        return f" Errors: {names}." if names else ""

    @cached_property
    def answer(self) -> type[Record]:
        return ANSWERS[self.request]

    @property
    def starts_job(self) -> bool:
        return self.answer is api.JobStarted

    @cached_property
    def gives(self) -> tuple[Typed, ...]:
        known = members(self.answer)
        if not known:
            return ()
        first, *others = known
        if self.starts_job or self.as_object:
            return (("job" if self.starts_job else "object", "o"),)
        if self.one_of:
            return ((first.removesuffix("s"), "a{sv}"),)
        if others and others != ["next"]:
            return (("answer", "a{sv}"),)
        return tuple((name, signature(known[name].type, name)) for name in known)

    @cached_property
    def in_signature(self) -> str:
        return "".join(kind for _, kind in self.takes)

    @cached_property
    def out_signature(self) -> str:
        return "".join(kind for _, kind in self.gives)

    # --- the service's side ---

    def parse(self, body: list[Any], name: str = "") -> Asked:
        """What a call of the object `name` asks for."""
        *values, options = body
        for option in options:
            if option not in (*self.option_names, SILENT):
                known = ", ".join((*self.option_names, SILENT))
                raise InvalidError(
                    f"{self.name} has no option {option!r}", hint=f"it knows these: {known}"
                )
        options = dict(options)
        if "idempotency_key" in options and plain(options["idempotency_key"]) == "":
            raise InvalidError(
                f"{self.name}: idempotency_key is empty", hint="leave it out, or give one"
            )
        silent = plain(options.pop(SILENT, False))
        if not isinstance(silent, bool):
            raise InvalidError(f"{self.name}: {SILENT} is a boolean", hint="b true, or b false")
        asked = dict(zip(self.argument_names, values, strict=True)) | options | self._named(name)
        try:
            return Asked(record_in(self.request, asked, strict=True), silent)
        except InvalidError as error:
            raise InvalidError(f"{self.name}: {error.message}", hint=error.hint) from None

    def _named(self, name: str) -> dict[str, str]:
        if not self.target:
            return {}
        parts = name.split(":", len(self.target) - 1)
        if len(parts) < len(self.target):
            wanted = ":".join(self.target).upper()
            raise InvalidError(f"{self.name} is asked of {wanted}, and {name!r} is none")
        return dict(zip(self.target, parts, strict=True))

    def action_for(self, request: Record) -> Action | None:
        if any(getattr(request, option) for option in self.destroys):
            return Action.DESTROY_DATA
        return self.action

    def answer_body(self, answer: Record) -> list[Any]:
        if not isinstance(answer, self.answer):
            raise TypeError(f"{self.name} is answered by {type(answer).__name__}")
        if not self.gives:
            return []
        if self.starts_job:
            return [_path(getattr(answer, "job", None))]
        known = members(self.answer)
        if self.one_of or self.as_object:
            found = getattr(answer, next(iter(known)))
            if len(found) != 1:
                raise NotFoundError(f"there is no such {self.gives[0][0]}")
            return [_path(found[0]) if self.as_object else _listed(found[0])]
        if self.out_signature == "a{sv}":
            return [record_out(answer)]
        return [_listed(getattr(answer, name)) for name, _ in self.gives]

    # --- the caller's side ---

    def name_of(self, request: Record) -> str:
        """The name of the object that it is asked of."""
        return ":".join(getattr(request, member) for member in self.target)

    def call_body(self, request: Record) -> list[Any]:
        written = record_out(request)
        options = {}
        for name in self.option_names:
            default = members(self.request)[name].default
            if name in written and getattr(request, name) != default:
                options[name] = written[name]
        return [*(written[name].value for name in self.argument_names), options]

    def read_answer(self, body: list[Any]) -> Record:
        """Not of methods that answer with an object's path."""
        known = members(self.answer)
        if not self.gives:
            values = {}
        elif self.one_of:
            values = {next(iter(known)): list(body)}
        elif self.out_signature == "a{sv}":
            (values,) = body
        else:
            values = dict(zip(known, body, strict=False))
        try:
            return record_in(self.answer, plain(values))
        except InvalidError as error:
            raise FailedError(
                f"the answer to {self.name} is not understood: {error.message}",
                hint="if it was upgraded, restart it: `systemctl restart vastskyd`",
            ) from None


def _path(record: Record | None) -> str:
    """A job without an id is of a dry run."""
    place = None if record is None else place_of(record)
    return place.path if place is not None and place.name else NO_OBJECT


def _listed(value: Any) -> Any:
    """As value_out; a record that describes an object says which."""
    if isinstance(value, tuple):
        return [_listed(item) for item in value]
    if not isinstance(value, Record):
        return value_out(value)
    place = place_of(value)
    named = {} if place is None else {OBJECT: Variant("o", place.path)}
    return record_out(value) | named


@dataclass(frozen=True)
class Property:
    """Shows `member` of the record, by its name on D-Bus, or what `read` makes of the record, which
    then is of type `kind`. `changes`: it can, while the object is there."""

    name: str
    member: str
    purpose: str
    changes: bool = True
    kind: str = ""
    read: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Signal:
    name: str
    purpose: str
    gives: tuple[Typed, ...]


@dataclass(frozen=True)
class Interface:
    """`record`: what its properties show."""

    short: str
    purpose: str
    record: type[Record]
    methods: tuple[Method, ...]
    properties: tuple[Property, ...]
    signals: tuple[Signal, ...] = ()

    @property
    def name(self) -> str:
        return f"{BUS_NAME}.{self.short}"

    def method(self, name: str) -> Method | None:
        return next((method for method in self.methods if method.name == name), None)

    def kind(self, shown: Property) -> str:
        """The property's signature."""
        return shown.kind or signature(members(self.record)[shown.member].type, shown.member)

    def values(self, record: Record) -> dict[str, Variant]:
        answer = {}
        for shown in self.properties:
            kind = self.kind(shown)
            value = (
                value_out(shown.read(record)) if shown.read else member_out(record, shown.member)
            )
            answer[shown.name] = Variant(kind, nothing(kind) if value is None else value)
        return answer
