"""Who a client is that proves nothing."""

import pytest

from ingest.wire.conversation import Claim, Peer, Standing
from ingest.wire.errors import ErrorCode, PeerError
from ingest.wire.identity import ConfiguredIdentity
from ingest.wire.options import OptionError, Options

LOCAL = Peer("local", None, encrypted=False, local=True)


def elsewhere(host: str) -> Peer:
    return Peer(host, 50123, encrypted=False, local=False)


def identity(**options: object) -> ConfiguredIdentity:
    return ConfiguredIdentity.read(Options(options))


def test_this_host_needs_no_network() -> None:
    assert identity(device="gateway").claim(LOCAL) == Claim("gateway", Standing.REGISTERED)


@pytest.mark.parametrize("host", ["10.1.2.3", "::ffff:10.1.2.3", "fe80::1%eth0"])
def test_a_named_network(host: str) -> None:
    known = identity(device="gateway", networks=["10.0.0.0/8", "fe80::/10"])
    assert known.claim(elsewhere(host)).device == "gateway"


@pytest.mark.parametrize("networks", [None, ["10.0.0.0/8"], ["::/0"]])
@pytest.mark.parametrize("host", ["11.0.0.1", "unknown"])
def test_any_other_network(networks: object, host: str) -> None:
    known = identity(device="gateway", **({"networks": networks} if networks else {}))
    with pytest.raises(PeerError) as caught:
        known.claim(elsewhere(host))
    assert caught.value.code is ErrorCode.AUTH_FAILED


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("192.0.2.1", "host-192.0.2.1"),
        ("2001:db8::1", "host-2001:db8::1"),
        ("fe80::1%eth0", "host-fe80::1-eth0"),
    ],
)
def test_a_device_for_each_host(host: str, name: str) -> None:
    known = identity(networks=["0.0.0.0/0", "::/0"], unregistered="accept")
    assert known.claim(elsewhere(host)) == Claim(name, Standing.UNREGISTERED)


def test_the_name_that_it_gives_itself() -> None:
    assert identity().claim(LOCAL, "sn-5").device == "sn-5"
    assert identity(device="gateway").claim(LOCAL, "sn-5").device == "gateway"
    with pytest.raises(PeerError) as caught:
        identity().claim(LOCAL, "../x")
    assert caught.value.code is ErrorCode.AUTH_FAILED


def test_a_device_that_can_not_be_one() -> None:
    with pytest.raises(OptionError, match="device: 'a b'"):
        identity(device="a b")
