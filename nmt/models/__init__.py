"""The encoder-decoder Transformer and its mixture-of-experts layers."""
