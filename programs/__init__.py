"""Parts of train.py, evaluate.py and explain.py: what they can be told, and what they make of it."""
