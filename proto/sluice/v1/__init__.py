"""Version 1 of the Embeddings API: messages and stubs generated from embeddings.proto."""
