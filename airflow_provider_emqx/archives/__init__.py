"""The files that EMQX 5 and 6 export: archives of tables whose records are Erlang's terms."""
