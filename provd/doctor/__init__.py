"""What `provd doctor` looks at. Everything is looked at, and nothing is changed."""
