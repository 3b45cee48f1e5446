"""The operations of EMQX's management API, EMQX 4 (``/api/v4``)."""
