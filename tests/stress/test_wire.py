"""What the proxy reads of the protocol, in whatever pieces the bytes come."""

import pytest

from tests.stress.wire import Statements, duty

SYNC = b"S\0\0\0\x04"
BEGIN = b"P\0\0\0\x11" + b"s\0select 1\0\0\0" + SYNC
BIND = b"B" + (4 + 3 + 70_000).to_bytes(4, "big") + b"\0s\0" + b"P" * 70_000 + SYNC
QUERY = b"Q\0\0\0\x0bvacuum\0"


@pytest.mark.parametrize("size", [4096, 65_536, 1 << 20])
def test_long_messages_come_in_pieces(size: int) -> None:
    statements, said = Statements(), BEGIN + BIND + QUERY
    found = [text for at in range(0, len(said), size) for text in statements.run(said[at : at + size])]
    assert found == [b"select 1", b"vacuum"]


@pytest.mark.parametrize("cut", range(5))
def test_a_chunk_may_end_within_a_head(cut: int) -> None:
    statements, said, at = Statements(), BEGIN + BIND + QUERY, len(BEGIN + BIND) + cut
    assert statements.run(said[:at]) + statements.run(said[at:]) == [b"select 1", b"vacuum"]


def test_a_connections_duty_is_what_follows_our_name() -> None:
    assert duty(b"\0\0\0\x08\0\x03\0\0user\0u\0application_name\0worker beat\0\0") == "beat"
    assert duty(b"\0\0\0\x08\0\x03\0\0user\0u\0\0") == ""
