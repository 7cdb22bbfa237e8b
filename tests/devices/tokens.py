"""Tokens for property tests."""

from hypothesis import strategies as st

from ingest.devices.verifier import InvalidToken, normalize


def is_legal(token: str) -> bool:
    """Tell whether a device may have this token."""
    try:
        normalize(token)
    except InvalidToken:
        return False
    return True


_ASCII = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1)
_UNICODE = st.text(st.characters(max_codepoint=0xFFFF).filter(is_legal), min_size=1, max_size=20)

legal_tokens = st.one_of(_ASCII, _UNICODE).filter(is_legal)

made_tokens = legal_tokens.map(str.strip).filter(is_legal)
"""Those that can be made: blanks around a token are not part of it."""
