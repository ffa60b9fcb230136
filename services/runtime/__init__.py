"""The runtime: loads and calls models, and advertises its hardware, frameworks and labels. All its
state can be had again from other services.
"""
