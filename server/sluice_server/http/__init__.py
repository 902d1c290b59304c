"""HTTP: probes, /health, /info, /metrics and OpenAI's /v1/embeddings."""
