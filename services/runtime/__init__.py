"""The runtime: executes work on loaded models; says what hardware, frameworks and labels it has;
owns no truth.
"""
