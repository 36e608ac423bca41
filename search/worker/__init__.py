"""What runs on a Ray Train worker: members, the teams they train in, their reports."""
