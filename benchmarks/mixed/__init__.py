"""The mixed load: 8 models, 4 tenants and 3 forms of request at random, each request with an id of
its own. Imports the systems and the load generators of `benchmarks`.
"""
