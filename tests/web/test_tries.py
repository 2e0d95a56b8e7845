"""Wrong keys by address: bounded in number and memory, and no harm to who is right."""

from worker.web.tries import ADDRESSES, BURST, EVERY_SECONDS, Tries


def tries():
    now = [0.0]
    return Tries(lambda: now[0]), now


def test_so_many_at_once_then_one_every_few_seconds():
    made, now = tries()
    for _ in range(int(BURST)):
        assert made.may("192.0.2.1", "x")
        made.wrong("192.0.2.1")
    assert not made.may("192.0.2.1", "x")
    assert made.may("192.0.2.2", "x")
    now[0] += EVERY_SECONDS
    assert made.may("192.0.2.1", "x")
    made.wrong("192.0.2.1")
    assert not made.may("192.0.2.1", "x")


def test_a_key_that_was_right_is_always_looked_at():
    made, _ = tries()
    made.right("good")
    for _ in range(100):
        made.wrong("192.0.2.1")
    assert made.may("192.0.2.1", "good")
    assert not made.may("192.0.2.1", "other")


def test_of_ipv6_a_client_has_a_whole_network():
    made, _ = tries()
    for n in range(100):
        made.wrong(f"2001:db8::{n:x}")
        made.wrong("::ffff:192.0.2.7")
    assert not made.may("2001:db8::ffff", "x")
    assert made.may("2001:db8:0:1::1", "x")
    assert not made.may("::ffff:192.0.2.7", "x")


def test_a_million_addresses_are_not_remembered():
    made, _ = tries()
    for n in range(ADDRESSES * 3):
        made.wrong(f"10.0.{n // 256}.{n % 256}")
    assert len(made._left) == ADDRESSES
    assert made.may("no address", "x")
