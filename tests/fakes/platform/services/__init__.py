"""Stand-ins for the five services, found before the real ones when their folder stands first on
PYTHONPATH.
"""
