"""Shows the whole platform on real models (`make demo`) and compares every answer with the model's
own.
"""
