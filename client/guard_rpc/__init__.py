"""The guard as a service of its own: gRPC on a Unix socket, typed messages, one door."""
