"""The management API as data: operations are generators of requests. No socket, no clock, no sleep."""
