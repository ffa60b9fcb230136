"""Verifies who calls, proves who this process is, and records what callers changed. Imports the modules of chassis."""
