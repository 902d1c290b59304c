"""The main job, end to end: a cluster, the images, the chart, a model, an EmbeddingService, a client inside."""
