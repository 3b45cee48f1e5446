"""The operations of EMQX's management API, EMQX 5 and 6 (``/api/v5``)."""
