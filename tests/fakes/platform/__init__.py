"""Stand-ins for the five services, and `stellwerk up` with them."""
