"""How a process runs: config, logs, lifecycle, server, interceptors, clients, auth, broker, mongo.

No domain words live here."""
