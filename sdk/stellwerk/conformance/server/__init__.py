"""Calls the server under test, over REST and gRPC. Imports the modules of conformance."""
