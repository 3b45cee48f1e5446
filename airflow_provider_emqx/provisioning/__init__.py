"""Bulk work on users: rows of a source become users of the broker, each row with one outcome."""
