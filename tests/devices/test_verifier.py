"""The verifier: RFC 7677's example, SASLprep, decoys."""

import hashlib
import hmac
import re
from base64 import b64decode
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scramp.utils import saslprep

from ingest.devices.verifier import (
    MAX_TOKEN,
    InvalidToken,
    decoy,
    derive,
    derive_many,
    make_token,
    matches,
    normalize,
)
from tests.devices.tokens import legal_tokens

_EXAMPLE = (  # RFC 7677, section 3: client-first-bare, server-first, client-final without proof
    b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
)
_PROOF = b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
_SERVER_SIGNATURE = b64decode("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


def test_example_of_rfc_7677() -> None:
    verifier = derive("pencil", b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
    assert verifier.iterations == 4096
    signature = hmac.digest(verifier.stored_key, _EXAMPLE, "sha256")
    client_key = bytes(a ^ b for a, b in zip(_PROOF, signature, strict=True))
    assert hashlib.sha256(client_key).digest() == verifier.stored_key
    assert hmac.digest(verifier.server_key, _EXAMPLE, "sha256") == _SERVER_SIGNATURE


@settings(deadline=None, max_examples=50)
@given(legal_tokens)
def test_a_token_matches_its_verifier_and_no_other(token: str) -> None:
    verifier = derive(token)
    assert matches(verifier, token)
    assert not matches(verifier, token + "x")


def test_verifiers_of_one_token_differ_in_their_salt() -> None:
    assert derive("token") != derive("token")


@settings(deadline=None)
@given(legal_tokens)
def test_normalize_is_saslprep(token: str) -> None:
    assert normalize(token).decode() == saslprep(token)


def test_spellings_of_one_text_are_one_token() -> None:
    assert matches(derive("caf\u00e9"), "cafe\u0301")
    assert matches(derive("IX"), "\u2168")  # RFC 4013, section 3


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "empty"),
        ("\u00ad", "empty"),  # a soft hyphen is mapped to nothing
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("\ud800", "surrogate"),
        ("\u0627\u0031", "bidi"),  # RFC 4013, section 3
        ("x" * (MAX_TOKEN + 1), "1,024 bytes"),
        ("\u00e9" * (MAX_TOKEN // 2 + 1), "1,024 bytes"),
        ("\ufdfa" * (MAX_TOKEN // 3), "1,024 bytes"),  # each is 18 characters when prepared
    ],
)
def test_illegal_tokens(token: str, reason: str) -> None:
    with pytest.raises(InvalidToken, match=reason):
        derive(token)
    assert not matches(derive("token"), token)


def test_the_longest_token() -> None:
    assert matches(derive("x" * MAX_TOKEN), "x" * MAX_TOKEN)


def test_made_tokens() -> None:
    tokens = {make_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", token) for token in tokens)


@given(st.text(st.characters(codec="utf-8")), st.binary(min_size=1))
def test_decoys_are_the_same_each_time_and_differ_by_name_and_key(name: str, key: bytes) -> None:
    first = decoy(name, key)
    assert first == decoy(name, key)
    assert first.salt != decoy(name + "x", key).salt
    assert first.salt != decoy(name, key + b"x").salt


def test_a_decoy_looks_like_a_verifier_and_matches_nothing() -> None:
    real, fake = derive("token"), decoy("sensor-1", b"key")
    assert len(fake.salt) == len(real.salt)
    assert len(fake.stored_key) == len(real.stored_key)
    assert len({fake.salt, fake.stored_key, fake.server_key}) == 3
    assert fake.iterations == real.iterations
    assert not matches(fake, "token")


def test_many_verifiers_come_in_the_order_of_their_tokens() -> None:
    tokens = [f"token-{number}" for number in range(120)]
    verifiers = list(derive_many(tokens))
    assert len(verifiers) == 120
    assert all(matches(verifiers[place], tokens[place]) for place in (0, 49, 50, 119))


def test_many_verifiers_may_be_left_early() -> None:
    verifiers = derive_many(["token"] * 200)
    assert len(list(islice(verifiers, 3))) == 3
    verifiers.close()


def test_an_illegal_token_among_many() -> None:
    with pytest.raises(InvalidToken):
        list(derive_many(["token", ""]))
