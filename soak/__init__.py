"""Long runs that show what short tests cannot: that nothing grows, leaks or wears out. `python -m
soak [name …]`.
"""
