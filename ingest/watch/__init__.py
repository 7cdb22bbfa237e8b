"""What people look at, ask and decide: a process of its own, which only reads."""
