"""gRPC: protobuf to domain and back."""
