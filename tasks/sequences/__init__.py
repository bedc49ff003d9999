"""Problems of tokens."""
