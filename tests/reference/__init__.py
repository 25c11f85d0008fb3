"""Plain-loop references, written from the papers alone, that the fast implementations are compared with."""
