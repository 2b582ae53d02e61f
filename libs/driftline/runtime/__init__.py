"""What every process needs: settings, logs, metrics, health, clock, ids, and the vocabulary of errors."""
