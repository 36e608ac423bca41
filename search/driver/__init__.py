"""What runs in the driver: reports in, decisions out, all of it recorded and shown."""
