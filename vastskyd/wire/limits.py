"""Every bound of the peer protocol in one place; the defaults suit hundreds of nodes."""

from dataclasses import dataclass

from vastskyd.core.units import KIB, MIB


@dataclass(frozen=True)
class WireLimits:
    """What one node grants its peers, and how long it waits for them.

    `unauthenticated` counts accepted connections that have not finished their hello; the
    anonymous ones (hosts that want to join) are among them.
    """

    # frames and queues
    frame_bytes: int = 4 * MIB
    unauthenticated_frame_bytes: int = 16 * KIB
    send_queue_frames: int = 1024
    send_queue_bytes: int = 16 * MIB
    requests_in_flight: int = 256
    requests_in_flight_bytes: int = 32 * MIB

    # time
    # A host that is hardly alive under its load answers late. Were it hung up on, all would dial
    # again, and each try cost it another handshake.
    connect_s: float = 10.0  # TCP and TLS together
    hello_s: float = 10.0
    heartbeat_s: float = 2.0
    dead_after_s: float = 6.0
    drain_s: float = 6.0  # one frame must leave within this time
    frame_s: float = 30.0  # one frame must arrive within this time, once it has begun
    handler_s: float = 60.0
    close_s: float = 1.0
    accept_pause_s: float = 0.5  # after the system refused to accept

    # connections
    sessions: int = 1024
    unauthenticated: int = 64
    unauthenticated_per_address: int = 16
    anonymous: int = 16
    anonymous_s: float = 10.0
    anonymous_requests: int = 2
    backlog: int = 128

    # dialing
    stagger_s: float = 0.25  # between the addresses of one node
    reconnect_first_s: float = 0.2
    reconnect_max_s: float = 5.0

    # logging
    log_window_s: float = 60.0
    log_lines_per_window: int = 100
