"""What an operator sees and asks of a running listener."""
