"""The interface as a table: which D-Bus method carries which request, and with what types.

Arguments are the request's members without a default, in order; the others travel in the
options a{sv} that every method takes last, so that a method can learn without being renamed.
An answer of a single member is returned bare (`ListNodes` gives aa{sv}, not a{sv} around it).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vastskyd.core import api
from vastskyd.core.errors import FailedError, InvalidError, NotFoundError
from vastskyd.core.model import Record
from vastskyd.dbus.variants import members, plain, record_in, record_out, signature, value_out

BUS_NAME = "org.vastsky.Vastsky1"
PATH = "/org/vastsky/Vastsky1"
INTERFACE = "org.vastsky.Vastsky1.Manager"
ERROR_PREFIX = "org.vastsky.Vastsky1.Error."

ANSWERS = api.ADMIN_REQUESTS | api.LOCAL_REQUESTS

Typed = tuple[str, str]  # an argument's name and signature


@dataclass(frozen=True)
class Method:
    """`changes`: not for everybody. `arguments` and `options` where they differ from the rule
    above. `one_of`: the answer's only member is a list, and the method gives its only element;
    none is NotFound."""

    name: str
    request: type[Record]
    purpose: str
    changes: bool = False
    arguments: tuple[str, ...] | None = None
    options: tuple[str, ...] | None = None
    one_of: bool = False

    @cached_property
    def argument_names(self) -> tuple[str, ...]:
        if self.arguments is not None:
            return self.arguments
        return tuple(name for name, member in members(self.request).items() if member.required)

    @cached_property
    def option_names(self) -> tuple[str, ...]:
        if self.options is not None:
            return self.options
        return tuple(name for name in members(self.request) if name not in self.argument_names)

    def _typed(self, names: tuple[str, ...]) -> tuple[Typed, ...]:
        known = members(self.request)
        return tuple((name, signature(known[name].type, name)) for name in names)

    @cached_property
    def takes(self) -> tuple[Typed, ...]:
        return (*self._typed(self.argument_names), ("options", "a{sv}"))

    @cached_property
    def known_options(self) -> tuple[Typed, ...]:
        return self._typed(self.option_names)

    @cached_property
    def gives(self) -> tuple[Typed, ...]:
        answer = ANSWERS[self.request]
        known = members(answer)
        if not known:
            return ()
        if len(known) > 1:
            return (("answer", "a{sv}"),)
        ((name, member),) = known.items()
        kind = signature(member.type, name)
        return ((name.removesuffix("s"), kind[1:]),) if self.one_of else ((name, kind),)

    @cached_property
    def in_signature(self) -> str:
        return "".join(kind for _, kind in self.takes)

    @cached_property
    def out_signature(self) -> str:
        return "".join(kind for _, kind in self.gives)

    # --- the service's side ---

    def parse(self, body: list[Any]) -> Record:
        """The request that a call's body asks for."""
        *values, options = body
        for name in options:
            if name not in self.option_names:
                known = ", ".join(self.option_names) or "none"
                raise InvalidError(
                    f"{self.name} has no option {name!r}", hint=f"it knows these: {known}"
                )
        asked = dict(zip(self.argument_names, values, strict=True)) | options
        try:
            return record_in(self.request, asked, strict=True)
        except InvalidError as error:
            raise InvalidError(f"{self.name}: {error.message}") from None

    def answer_body(self, answer: Record) -> list[Any]:
        if not self.gives:
            return []
        if len(members(type(answer))) > 1:
            return [record_out(answer)]
        (name,) = members(type(answer))
        value = value_out(getattr(answer, name))
        if not self.one_of:
            return [value]
        if len(value) != 1:
            raise NotFoundError(f"no such {name.removesuffix('s')}")
        return value[:1]  # type: ignore[no-any-return]

    # --- the caller's side ---

    def call_body(self, request: Record) -> list[Any]:
        written = record_out(request)
        options = {}
        for name in self.option_names:
            default = members(self.request)[name].default
            if name in written and getattr(request, name) != default:
                options[name] = written[name]
        return [*(written[name].value for name in self.argument_names), options]

    def read_answer(self, body: list[Any]) -> Record:
        record = ANSWERS[self.request]
        if not self.gives:
            values = {}
        elif len(members(record)) > 1:
            (values,) = body
        else:
            (name,) = members(record)
            values = {name: list(body) if self.one_of else body[0]}
        try:
            return record_in(record, plain(values))
        except InvalidError as error:
            raise FailedError(
                f"the answer to {self.name} is not understood: {error.message}",
                hint="are vastskyctl and the running vastskyd of the same version?",
            ) from None


METHODS = (
    Method("Status", api.ShowStatus, "The cluster's health and counts."),
    Method("ListNodes", api.ListNodes, "All nodes."),
    Method("ListDisks", api.ListDisks, "Enrolled disks and candidates."),
    Method("ListVolumes", api.ListVolumes, "All volumes, or the one that an option names."),
    Method(
        "GetVolume", api.ListVolumes, "One volume, by name or id.",
        arguments=("volume",), options=(), one_of=True,
    ),
    Method("ListJobs", api.ListJobs, "Jobs, running and ended."),
    Method("GetJob", api.ShowJob, "One job.", options=(), one_of=True),
    Method(
        "WaitJob", api.ShowJob,
        "One job, answered when it ends, or differs from the option seen, or wait_s have passed.",
        arguments=("job", "wait_s"), options=("seen",), one_of=True,
    ),
    Method("ListEvents", api.ListEvents, "What happened: the newest events."),
    Method("CreateToken", api.CreateToken, "A token that lets a host join.", changes=True),
    Method("EnrolDisk", api.EnrolDisk, "Take a disk into the cluster.", changes=True),
    Method("RetireDisk", api.RetireDisk, "Let a disk go that holds no legs.", changes=True),
    Method("CreateVolume", api.CreateVolume, "Make a volume.", changes=True),
    Method("DeleteVolume", api.DeleteVolume, "Delete a volume and its data.", changes=True),
    Method("AttachVolume", api.AttachVolume, "Make a volume a device of a head.", changes=True),
    Method(
        "FailoverVolume", api.FailoverVolume,
        "Move a volume to another head at once; its own is fenced.", changes=True,
    ),
    Method("SetStandby", api.SetStandby, "Name the heads that take a volume over.", changes=True),
    Method("DetachVolume", api.DetachVolume, "Take a volume off its head.", changes=True),
    Method("ScrubVolume", api.ScrubVolume, "Compare a volume's copies.", changes=True),
    Method("RemoveNode", api.RemoveNode, "Forget a node.", changes=True),
    Method(
        "ShowRecovery", api.ShowRecovery,
        "What a rebuild of the manager's lost records would find.", changes=True,
    ),
    Method(
        "BeginRecovery", api.BeginRecovery,
        "Set the manager's records aside, to make them anew.", changes=True,
    ),
    Method(
        "FinishRecovery", api.FinishRecovery,
        "Make the manager's records anew from what its hosts say.", changes=True,
    ),
    Method("InitCluster", api.InitCluster, "Make this host a cluster's first.", changes=True),
    Method("JoinCluster", api.JoinCluster, "Make this host a node.", changes=True),
)  # fmt: skip
BY_NAME = {method.name: method for method in METHODS}


def carrier(request: type[Record]) -> Method:
    """By which a request is sent: the first method that can carry all of its members."""
    return next(
        method
        for method in METHODS
        if method.request is request
        and {*method.argument_names, *method.option_names} == set(members(request))
    )


# Properties of the same object, of api.LocalView: property, member, and whether it can change
# while vastskyd runs. There is no change signal yet.
PROPERTIES = (
    ("Version", "version", False),
    ("Node", "node", True),
    ("ClusterName", "cluster_name", True),
    ("Roles", "roles", True),
    ("Connected", "connected", True),
    ("LocalVolumes", "volumes", True),
)
