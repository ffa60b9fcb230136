"""Stellwerk's five services, what they agree on (`wire`) and how a process runs (`chassis`)."""
