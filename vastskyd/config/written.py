"""Values as TOML writes them."""

import json
import re

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_HEX_FROM_BITS = 128  # Python refuses to write long numbers out in decimal


def written(value: object) -> str:
    """What a person would write after "=".

    >>> written(["10.0.1.7", True, 5.0])
    '["10.0.1.7", true, 5.0]'
    """
    match value:
        case bool():
            return str(value).lower()
        case int() if value.bit_length() > _HEX_FROM_BITS:
            return hex(value)
        case str():
            return "".join(map(_visible, json.dumps(str(value), ensure_ascii=False)))
        case list() | tuple():
            return f"[{', '.join(written(each) for each in value)}]"
        case dict():
            inside = ", ".join(f"{written_key(key)} = {written(of)}" for key, of in value.items())
            return f"{{ {inside} }}" if inside else "{}"
    return str(value)


def _visible(letter: str) -> str:
    if letter.isprintable():
        return letter
    return f"\\u{ord(letter):04x}" if ord(letter) < 1 << 16 else f"\\U{ord(letter):08x}"


def written_key(key: str) -> str:
    """
    >>> written_key("port"), written_key("a.b")
    ('port', '"a.b"')
    """
    return key if _BARE.fullmatch(key) else written(key)
