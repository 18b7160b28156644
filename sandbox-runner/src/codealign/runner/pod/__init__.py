"""Transport of a runner that is a pod: a gRPC server to which gateways attach. A runner never opens connections."""
