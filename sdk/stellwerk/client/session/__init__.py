"""Carries operations out: each a plan of steps, sent over a transport and tried again where that is safe. Imports transport."""
