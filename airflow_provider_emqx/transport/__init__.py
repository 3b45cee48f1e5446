"""The two drivers that run operations: ``sync`` over requests, ``aio`` over aiohttp, with one retry policy."""
