"""The Explainer for programs without this package: ONNX, or torch.export's archive, checked against PyTorch."""
