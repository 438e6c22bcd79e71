import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastskyd.core.errors import InvalidError
from vastskyd.core.ids import ClusterId, NodeId
from vastskyd.core.model import Role
from vastskyd.wire.token import JoinToken, new_secret, parse_token, secret_digest, secret_matches

TOKEN = JoinToken(
    ca_fingerprint="ab" * 32,
    cluster=ClusterId("c1"),
    manager=NodeId("m1"),
    addresses=("10.0.0.1", "10.1.0.1"),
    port=8884,
    secret="s3cret",
    expires_s=1000.0,
    roles=(Role.STORAGE, Role.HEAD),
)


def test_a_token_is_read_as_it_was_made() -> None:
    text = TOKEN.encode()
    assert text.startswith("vsky1-")
    assert parse_token(text) == TOKEN
    assert parse_token(f"  {text[:30]}\n   {text[30:]}\n") == TOKEN


def test_every_truncated_token_is_told() -> None:
    text = TOKEN.encode()
    for length in range(len(text)):
        with pytest.raises(InvalidError) as caught:
            parse_token(text[:length])
        assert "vastskyctl cluster token" in caught.value.hint


@given(st.integers(6, len(TOKEN.encode()) - 1), st.sampled_from("Ab1_-*=é "))
def test_an_altered_token_is_never_another_token(place: int, letter: str) -> None:
    text = TOKEN.encode()
    altered = text[:place] + letter + text[place + 1 :]
    try:
        token = parse_token(altered)
    except InvalidError:
        return
    assert token == TOKEN  # a blank within, or spare bits of the last letter


@given(st.text())
def test_any_text_is_a_token_or_invalid(text: str) -> None:
    for attempt in (text, "vsky1-" + text):
        with pytest.raises(InvalidError):
            parse_token(attempt)


def test_another_version_is_told_apart() -> None:
    with pytest.raises(InvalidError, match="another version"):
        parse_token("vsky2-abc")


def test_it_expires_and_hides_its_secret() -> None:
    assert not TOKEN.is_expired(999.9)
    assert TOKEN.is_expired(1000.0)
    assert "s3cret" not in repr(TOKEN) + str(TOKEN) + f"{TOKEN}"


def test_only_the_digest_of_a_secret_is_kept() -> None:
    secret = new_secret()
    assert secret != new_secret()
    assert secret_matches(secret, secret_digest(secret))
    assert not secret_matches(secret + "x", secret_digest(secret))
    assert not secret_matches("\u00e9", secret_digest(secret))
