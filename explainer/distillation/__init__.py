"""Attribution methods as teachers of the Explainer: their maps, computed once and kept, and the loss that uses them."""
