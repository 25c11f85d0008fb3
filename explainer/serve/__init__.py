"""The local page of `explain.py --serve`: an image is dropped, its overlays are looked at, its masks downloaded."""
