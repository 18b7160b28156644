"""Text generation behind one gRPC contract, whatever the engine."""
