"""The host's clock and randomness. Implements ports.Clock."""

import asyncio
import secrets
import time


class SystemClock:
    def now_s(self) -> float:
        return time.time()

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)

    def new_token(self, digits: int) -> str:
        return secrets.token_hex((digits + 1) // 2)[:digits]
