"""Fluent Forward v1, the server's side: what Fluentd, Fluent Bit and their libraries speak."""
