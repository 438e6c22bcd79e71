"""What a head can be told to do next, one kernel call or so each. Each is safe to repeat."""

from dataclasses import dataclass

import msgspec

from vastskyd.core.documents import Endpoint
from vastskyd.core.ids import ExtentId, NodeId, VolumeId
from vastskyd.core.model import Encryption
from vastskyd.core.names import LegName, VolumeDeviceName


class Connect(msgspec.Struct, frozen=True):
    """In the background: a peer that does not answer must not hold up the other legs."""

    extent: ExtentId
    epoch: int
    endpoint: Endpoint
    export_name: str
    encryption: Encryption
    server: NodeId


@dataclass(frozen=True)
class Disconnect:
    device: str


@dataclass(frozen=True)
class MapLeg:
    name: LegName
    paths: tuple[str, ...]
    size_bytes: int


@dataclass(frozen=True)
class ReleaseLeg:
    name: LegName


@dataclass(frozen=True)
class BreakLeg:
    """Every I/O of the leg fails from now on, what it holds too."""

    name: LegName


@dataclass(frozen=True)
class UnmapLeg:
    name: LegName


@dataclass(frozen=True)
class CreateArray:
    volume: VolumeId
    segment: int
    legs: tuple[str, ...]
    copies: int
    size_bytes: int


@dataclass(frozen=True)
class AssembleArray:
    volume: VolumeId
    segment: int
    legs: tuple[str, ...]


@dataclass(frozen=True)
class FindArray:
    """Nobody knows whether the array was ever created: by what stands on the legs it is assembled
    of those that have been of it; if none has, it is created."""

    volume: VolumeId
    segment: int
    legs: tuple[str, ...]
    copies: int
    size_bytes: int


@dataclass(frozen=True)
class MakeWritable:
    array: str


@dataclass(frozen=True)
class AddMember:
    """`volume` and `segment` say which array a returning leg must have been of."""

    array: str
    leg: str
    extent: ExtentId
    volume: VolumeId
    segment: int


@dataclass(frozen=True)
class FailMember:
    array: str
    leg: str


@dataclass(frozen=True)
class RemoveMember:
    array: str
    leg: str


@dataclass(frozen=True)
class ResizeArray:
    """To places for that many legs."""

    array: str
    places: int


@dataclass(frozen=True)
class ThawArray:
    array: str


@dataclass(frozen=True)
class StopArray:
    array: str


@dataclass(frozen=True)
class MapVolume:
    """`parts` are (device, offset, length) in order: the segments, without their guards."""

    name: VolumeDeviceName
    dm_name: str
    parts: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class UnmapVolume:
    """`force`: a fenced volume, whose users get errors if it cannot be removed."""

    dm_name: str
    force: bool


@dataclass(frozen=True)
class EndWriters:
    """Before the held I/O of a fenced volume is failed: md may then call a write done that one leg
    took before the fence, and that nobody will ever read."""

    dm_name: str


@dataclass(frozen=True)
class RemoveWreck:
    dm_name: str


Step = (
    Connect
    | Disconnect
    | MapLeg
    | ReleaseLeg
    | BreakLeg
    | UnmapLeg
    | CreateArray
    | AssembleArray
    | FindArray
    | MakeWritable
    | AddMember
    | FailMember
    | RemoveMember
    | ResizeArray
    | ThawArray
    | StopArray
    | MapVolume
    | UnmapVolume
    | EndWriters
    | RemoveWreck
)
