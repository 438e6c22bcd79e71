import logging

from tests.wire.lab import Recorder
from vastskyd.wire.once import OnceLog


def test_a_kind_of_trouble_is_told_once_per_peer_and_window() -> None:
    logger, recorder, now_s = logging.Logger("test"), Recorder(), 0.0
    logger.addHandler(recorder)
    log = OnceLog(logger, window_s=60, lines_per_window=3, monotonic_s=lambda: now_s)
    for _ in range(5):
        log.trouble("junk", "s1", "sent junk")
        log.trouble("junk", "s2", "sent junk")
    assert [vars(record)["PEER"] for record in recorder.events("junk")] == ["s1", "s2"]
    for number in range(100):
        log.trouble("junk", f"10.0.0.{number}", "sent junk")
    assert len(recorder.events("junk")) == 3
    now_s = 60.0
    log.trouble("junk", "s1", "sent junk")
    assert [record.args for record in recorder.events("suppressed")] == [(107,)]
    assert len(recorder.events("junk")) == 4
