"""The SQL registry and the artifact store."""
