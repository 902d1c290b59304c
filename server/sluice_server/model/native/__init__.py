"""A CPU engine of our own for models like BERT: built in seconds where it runs, with no memory or code per shape."""
