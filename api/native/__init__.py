"""The native API, ``/v1``: any action as an event, the feed, the audit log, bills and proofs."""
