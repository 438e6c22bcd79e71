"""What msgspec raises for bytes that are not what was asked for."""

from typing import Final

import msgspec

# Besides its own errors, decoders let two of Python's pass: bad UTF-8 in an object's key or a
# string (UnicodeDecodeError), and nesting without end (RecursionError).
DECODE_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
