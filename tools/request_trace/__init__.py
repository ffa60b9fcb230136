"""Traces one request through the platform's processes; see `tools/trace_request.py`."""
