"""The transport of a runner that is a pod: a gRPC server, to which gateways attach. Nothing dials out of a runner."""
