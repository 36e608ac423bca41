"""Where members live: Ray plumbing that knows no algorithm and no network."""
