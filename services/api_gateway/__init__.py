"""The gateway: the one public door, HTTP and gRPC. It turns requests into calls, decides nothing
and owns no data.
"""
