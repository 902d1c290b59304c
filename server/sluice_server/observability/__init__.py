"""What operators see of single requests and of the whole: ids, logs, metrics, traces. Nothing here decides anything."""
