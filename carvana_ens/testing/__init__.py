"""The plugin contract as plain check functions, and as a pytest class for plugin authors."""
