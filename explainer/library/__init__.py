"""What others build on: the Explainer with all that belongs to it, explanations that show themselves, the callback."""
