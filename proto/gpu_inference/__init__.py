"""The API of coral-gpu-inference 0.1.0: messages and stubs generated from inference.proto."""
