"""MQTT in the double: packets on the wire, sessions in the broker, and the listener that brings them together."""

from __future__ import annotations
