"""The guard as a service: gRPC on a Unix socket, with typed messages, for listed users only."""
