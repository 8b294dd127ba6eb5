"""The gRPC schema of the edge agent, and the modules generated from it."""
