"""The vocabulary that every other part shares. No torch, no onnx, no runtime."""
