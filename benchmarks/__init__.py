"""Side-by-side measurements: each figure is a ratio of two systems that do the same work in one
run.
"""
