"""How requests reach the platform: HTTP or gRPC, blocking or asynchronous, behind one narrow
port.
"""
