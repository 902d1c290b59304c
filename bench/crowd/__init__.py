"""One operator over a thousand pods: what it costs, how regularly it asks, how fast it acts."""
