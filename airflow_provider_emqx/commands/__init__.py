"""Commands to devices and their replies: what is said, what is known of each device, and the exchange itself."""

from __future__ import annotations
