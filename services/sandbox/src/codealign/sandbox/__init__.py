"""The sandbox gateway: queues programs, sends them to isolated runners, and answers with verdicts."""
