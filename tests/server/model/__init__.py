"""Every architecture, layout and pooling against transformers itself."""
