"""Streams of bytes for the HTTP server, and what uvicorn and h11 make of the same bytes."""
