"""`make demo`: the whole platform on real models, every answer compared with the model's own, step
by step.
"""
